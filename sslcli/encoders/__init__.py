"""Encoders, which turn a view into tokens and one pooled vector. Each option in ``conf/encoder`` has its class here."""
