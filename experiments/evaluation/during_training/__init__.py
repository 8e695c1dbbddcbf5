"""Evaluations that run while a model trains."""
