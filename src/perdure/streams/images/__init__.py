"""Image sets: finding, decoding and holding images."""
