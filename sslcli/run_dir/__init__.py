"""The files of a run: their names, their formats, and the code that writes and reads them."""
