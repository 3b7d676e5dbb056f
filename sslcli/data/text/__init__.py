"""Texts: read from files, tokenised once by a tokenizer of the run, and split so that duplicates stay together."""
