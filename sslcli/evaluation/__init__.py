"""How good an encoder is, with and without labels; mirrors ``conf/probe``."""
