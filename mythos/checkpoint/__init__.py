"""Files only: fragments of tensors, manifest, complete or absent directories, verification, retention, mirror."""
