"""Text and a tokenizer in, verified shards out."""
