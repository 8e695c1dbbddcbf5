"""What a training step would cost on a slice that is not at hand: compiled, never run."""
