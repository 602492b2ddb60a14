"""One HTML page for a run, built from the files that the run wrote. This package never imports torch."""
