"""Text to tokens: corpus, tokenizer, packing; and synthetic tasks."""
