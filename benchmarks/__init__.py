"""Speed and memory beside the original packages and today's PyTorch: python -m benchmarks."""
