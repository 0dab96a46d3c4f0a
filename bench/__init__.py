"""Measurements of speed, as ratios on the same machine; `make bench` runs them."""
