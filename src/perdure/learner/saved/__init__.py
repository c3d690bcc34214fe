"""Saved models: the folder, its formats, the card, the model hub."""
