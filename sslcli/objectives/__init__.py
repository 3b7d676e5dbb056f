"""Objectives: each projects every sample and takes one loss of the whole batch; mirrors ``conf/objective``."""
