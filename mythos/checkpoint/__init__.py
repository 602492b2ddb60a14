"""Files only: manifest, atomic directories, verification, retention."""
