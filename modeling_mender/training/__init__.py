"""Training: presets, methods, data, losses, the Trainer and whole runs. Nothing here travels with a saved model."""
