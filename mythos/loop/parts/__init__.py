"""Loop parts, one file each; their rows are in ``config.loop_parts``."""
