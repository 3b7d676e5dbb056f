"""Losses and estimators as functions of tensors; they know nothing of encoders."""
