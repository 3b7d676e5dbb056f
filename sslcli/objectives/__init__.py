"""What is descended: per-sample projections, then one loss on the whole batch; mirrors ``conf/objective``."""
