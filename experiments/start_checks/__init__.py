"""What a run needs, checked before its first step: `experiments.preflight`, `experiments.train`."""
