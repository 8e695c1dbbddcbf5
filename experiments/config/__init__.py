"""Frozen dataclasses of plain data that define a run."""
