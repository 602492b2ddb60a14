"""The assembly: blocks, core, head, initial values, generation."""
