"""The loop and what keeps it exact; mirrors ``conf/optimizer``, ``conf/schedule`` and ``conf/device``."""
