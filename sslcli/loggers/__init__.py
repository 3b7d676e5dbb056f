"""Loggers of metrics in addition to ``metrics.jsonl``; all are optional, and by default none uses the network."""
