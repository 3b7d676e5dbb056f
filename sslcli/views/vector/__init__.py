"""Views of vectors: some features replaced, or hidden."""
