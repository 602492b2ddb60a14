"""Verdicts: whether what a section shows is healthy, from recorded metrics and stated limits alone."""
