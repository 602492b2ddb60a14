"""Submitting a run to machines: validate, freeze, render, submit. No torch; not in the wheel."""
