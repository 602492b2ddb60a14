"""The plots by family. Each is a function from a run (or several) to a figure, or to None without its series."""
