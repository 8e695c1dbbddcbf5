"""Speed and memory against the original packages and today's PyTorch: python -m benchmarks."""
