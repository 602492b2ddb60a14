"""The loop of the core: numbers of loops, initial state, injection, parts, exits."""
