"""Losses and estimators as functions of tensors, independent of encoders."""
