"""Super-resolution by Real-ESRGAN's network: config, network, tiles, loading and inference."""
