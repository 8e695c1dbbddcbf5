"""Errors of what a person can do without: a set that is not on disk, a split that a set lacks."""

from __future__ import annotations

from clip_jax.errors import InputError


class MissingSet(InputError):
    """A set is not on disk; the one line says what to fetch and where to put it."""


class MissingSplit(InputError):
    """A set is on disk and has no split of this name."""
