"""Where records go, one file for each kind of tracker; a tracker's library is imported when it is chosen."""
