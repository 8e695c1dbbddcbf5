"""What a report knows of one system."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.evaluation.bench import Result


@dataclasses.dataclass
class Measured:
    """What is known of a system. Results by the set's name; published: task -> set -> number."""

    name: str
    about: Mapping[str, Any]
    published: Mapping[str, Mapping[str, float]]
    zero_shot: dict[str, Result] = dataclasses.field(default_factory=dict)
    probes: dict[str, Result] = dataclasses.field(default_factory=dict)
    retrieval: dict[str, Result] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: Result | None = None
    matrix: bytes | None = None

    def zero_shots(self) -> dict[str, float]:
        return {name: result["value"] for name, result in self.zero_shot.items()}

    def probe_of_most(self) -> dict[str, float]:
        """With the most images that were asked for, the last of each list."""
        return {name: result["shots"][-1]["mean"] for name, result in self.probes.items()}
