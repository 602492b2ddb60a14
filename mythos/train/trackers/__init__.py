"""Trackers, one file for each kind; a tracker's library is imported only if the configuration names it."""
