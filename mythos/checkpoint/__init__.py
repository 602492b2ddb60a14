"""Checkpoint files: tensor fragments, manifest, atomic directories, verification, retention, mirror."""
