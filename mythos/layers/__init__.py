"""Layers of any transformer, on one device: norm, rotation, attention, feed-forward, cross-entropy, cache."""
