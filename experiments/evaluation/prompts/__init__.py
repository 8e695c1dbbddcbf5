"""Class names, prompts and their translations."""
