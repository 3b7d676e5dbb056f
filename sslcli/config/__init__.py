"""Composing and checking the config, and building objects from it. Nothing in this package imports torch."""
