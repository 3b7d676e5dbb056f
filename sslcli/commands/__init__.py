"""The commands; each builds the components, checks that they fit together, and runs."""
