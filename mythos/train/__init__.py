"""The Lightning module, the trackers, and the composition root."""
