"""Configuration of a run: frozen, validated dataclasses. This package never imports torch."""
