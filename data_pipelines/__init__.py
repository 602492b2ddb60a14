"""Text to tokens: corpus, tokenizer, packing."""
