"""Several processes as one run: start, preemption, lost peers."""
