"""Turn text into tokens (corpus, tokenizer, packing), and generate synthetic tasks."""
