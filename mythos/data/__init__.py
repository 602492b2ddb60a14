"""Packed tokens in, micro-batches out: the stream is a pure function of (config, seed, sample index)."""
