"""Read packed tokens as micro-batches; the stream is a pure function of (config, seed, sample index)."""
