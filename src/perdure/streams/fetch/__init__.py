"""Published data sets: what they are, downloading, unpacking."""
