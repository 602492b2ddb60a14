"""Where text comes from, and which part of it is held out."""
