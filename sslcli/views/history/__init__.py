"""Views of histories of items, drawn for a whole batch on the device."""
