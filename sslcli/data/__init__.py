"""Named columns, by index; mirrors ``conf/dataset``."""
