"""The commands: each builds the parts, checks that they fit, and goes."""
