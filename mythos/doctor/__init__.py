"""Checks of a machine and of a run on it."""
