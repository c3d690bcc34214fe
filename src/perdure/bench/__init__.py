"""Measurements: speed as a share of a stated floor, in one run."""
