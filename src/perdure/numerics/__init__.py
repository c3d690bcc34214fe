"""Numerics: null spaces, Gaussians, ridge regression and drift, as pure functions in float64."""
