"""The error of a set that is not on disk."""

from __future__ import annotations

from clip_jax.errors import InputError


class MissingSet(InputError):
    """A set is not on disk; the one line says what to fetch and where to put it."""
