"""Pretrained encoders: weights of other projects, how they are loaded, and an encoder that takes raw samples."""
