"""Formats in which a run's encoder can be exported; mirrors ``conf/format``."""
