"""Datasets of pictures in folders, tars and tables, which are decoded when they are fetched."""
