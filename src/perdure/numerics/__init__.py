"""Pure tensor functions: subspaces and closed-form Gaussians, in float64 inside."""
