"""Published data sets: list, download, unpacking."""
