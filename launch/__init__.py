"""Submission of a run to machines: validate, freeze, render, submit. Imports no torch; not in the wheel."""
