"""Engine: configuration, training loop, surveys, evaluation, checkpoints."""
