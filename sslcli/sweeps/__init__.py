"""Sweeps: which job has which folder, launchers and sweepers for Hydra, and the table at the end."""
