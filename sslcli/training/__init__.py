"""The training loop and its hooks; mirrors ``conf/optimizer``, ``conf/schedule`` and ``conf/device``."""
