"""Backbones: the frozen vision transformer, additions to it, weights by name."""
