"""Evaluation of encoders, with and without labels; mirrors ``conf/probe``."""
