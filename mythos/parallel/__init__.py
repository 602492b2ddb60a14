"""How a single-device model meets its devices."""
