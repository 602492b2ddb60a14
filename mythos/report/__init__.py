"""One HTML page for a run, made from what the run wrote down. This package never imports torch."""
