"""Augmented views of images, computed for a whole batch on the device."""
