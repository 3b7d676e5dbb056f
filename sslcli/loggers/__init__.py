"""Where a run's figures go beside ``metrics.jsonl``; none unless it is asked for, and none to a network by itself."""
