"""Encode text with a tokenizer into verified shards."""
