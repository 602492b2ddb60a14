"""Pure functions from a model's output to named losses."""
