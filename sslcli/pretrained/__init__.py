"""Pretrained weights of other projects: how their files name tensors, and how these are loaded into an encoder."""
