"""Mythos: distributed pretraining of recurrent-depth mixture-of-experts transformers."""

__version__ = "0.1.0"
