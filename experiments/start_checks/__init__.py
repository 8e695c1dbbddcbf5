"""Checks what a run needs before its first step: `experiments.preflight`, `experiments.train`."""
