"""Synthetic reasoning problems with adjustable difficulty."""
