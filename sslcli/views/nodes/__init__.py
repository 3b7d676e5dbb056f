"""Views of pairs of users and items."""
