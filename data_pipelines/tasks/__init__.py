"""Synthetic reasoning problems whose difficulty is a parameter."""
