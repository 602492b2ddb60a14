"""The public Python API, which ``import mythos`` offers; docs/python.md describes it."""
