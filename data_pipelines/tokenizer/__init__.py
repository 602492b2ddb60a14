"""Train a byte-level BPE tokenizer on the training part of a corpus, and measure tokenizers."""
