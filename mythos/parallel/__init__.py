"""Devices, processes and engines for a model that is written for a single device."""
