"""The mixture of experts: routing, dispatch, expert products, balance."""
