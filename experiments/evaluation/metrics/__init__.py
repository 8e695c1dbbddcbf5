"""Measures of predictions, captions, answers and generated images."""
