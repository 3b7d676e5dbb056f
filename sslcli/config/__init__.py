"""The composed, checked config, and objects built from it; no torch in here."""
