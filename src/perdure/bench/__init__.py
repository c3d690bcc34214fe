"""Benchmarks: speed and cost on this machine, as shares of a stated floor."""
