"""Interactions of users with items: tables of them, their splits, and the samples that are made of them."""
