"""What a run's encoder can be handed over as; mirrors ``conf/format``."""
