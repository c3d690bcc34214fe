"""Figures of results, streams and costs."""
