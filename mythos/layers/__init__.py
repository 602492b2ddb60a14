"""What any transformer has, on one device: norm, rotation, attention, feed-forward, cross-entropy, cache."""
