"""A share of work, K/N, for machines that know nothing of each other."""

from __future__ import annotations

import dataclasses
import re
from typing import Self

from clip_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Part:
    """One of `count` parts, `number` from 0 on."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "K/N"; anything else raises InputError."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        part = cls(int(found[1]), int(found[2])) if found else None
        if part is None or part.number >= part.count:
            raise InputError(f"--part is {text!r}; expected K/N, K from 0 to N-1, such as 0/64")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
