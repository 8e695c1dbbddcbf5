"""All that exists only to run: data, training, evaluation, demonstrations."""
