"""Augmented views of a whole batch, on the device; mirrors ``conf/views``."""
