"""The plots, by family: each is one function from a run (or several) to a figure, or to None without its series."""
