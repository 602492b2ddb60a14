"""Mixture of experts: routing, dispatch, expert products, balance."""
