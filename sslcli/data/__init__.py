"""Datasets, which return named columns of the samples at given indices, and the code that loads batches of them."""
