"""The parts of `experiments/sweep.py`."""
