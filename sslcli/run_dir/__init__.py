"""Every file of a run: its name, its shape, how it is written and read."""
