"""Costs of a training step on a slice that is not at hand: compiled, never run."""
