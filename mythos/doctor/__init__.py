"""Whether a machine, and a run on it, can work."""
