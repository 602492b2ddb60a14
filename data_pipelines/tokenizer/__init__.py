"""Byte-level BPE, trained on the training part of a corpus."""
