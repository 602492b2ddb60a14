"""Parameters, FLOPs and memory of a run, from its configuration alone. This package never imports torch."""
