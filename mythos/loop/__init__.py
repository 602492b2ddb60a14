"""What makes it loop: injection, initial state, depth policy."""
