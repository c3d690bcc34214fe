"""The engine: what a run is, its loop, its checkpoints."""
