"""Lightning callbacks, one concern each, and the values that they share."""
