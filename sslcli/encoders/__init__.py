"""What turns a view into tokens and one pooled vector; mirrors ``conf/encoder``."""
