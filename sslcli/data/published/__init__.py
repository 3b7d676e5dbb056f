"""Published datasets, read from the files that their authors distribute."""
