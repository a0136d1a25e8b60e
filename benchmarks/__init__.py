"""Measurements beside plain Python or an engine's own API, as ratios taken in one run. ``python -m benchmarks``."""
