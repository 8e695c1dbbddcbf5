"""How a model is measured: zero-shot, probes, retrieval, perplexities, losses, speed."""
