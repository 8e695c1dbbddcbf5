"""The folder of a run: its lock, its identity, errors of its disk."""
