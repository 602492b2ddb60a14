"""Benchmarks of speed and memory, each reproducible by one command."""
