"""Sweeps: many runs, each in its own processes. This package never imports torch."""
