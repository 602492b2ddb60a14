"""What can be said about a run: frozen, validated dataclasses. This package never imports torch."""
