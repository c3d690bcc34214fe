"""The frozen vision transformer, what may be added to it, and where its weights come from."""
