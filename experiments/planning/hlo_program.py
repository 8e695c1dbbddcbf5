"""Reads the text of a compiled program (HLO): computations, instructions, how often they run."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator

SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_BITS = re.compile(r"([a-z]+)(\d+)?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][a-z0-9\-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|body|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')
_CONSTANT = re.compile(r"constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Holds one line. shape: of the result, as text. rest: operands and attributes."""

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])

    @functools.cached_property
    def called(self) -> list[str]:
        """Returns the names of the computations that it runs."""
        names = _CALLED.findall(self.rest)
        for branches in _BRANCHES.findall(self.rest):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        return names


class Program:
    """computations: instructions by name, "" where the program begins."""

    def __init__(self, hlo: str) -> None:
        self.computations: dict[str, list[Instruction]] = defaultdict(list)
        name = ""
        for line in hlo.splitlines():
            if head := _COMPUTATION.match(line):
                name = "" if head[1] else head[2]
            elif found := _INSTRUCTION.match(line):
                self.computations[name].append(Instruction(*found.groups()))

    def trip_count(self, loop: Instruction) -> int:
        """Returns how often the body of a `while` runs, 1 where that is not known."""
        if known := _TRIPS.search(loop.rest):
            return int(known[1])
        # A counted loop's condition compares with one constant.
        condition = _CONDITION.search(loop.rest)
        lines = self.computations[condition[1]] if condition else []
        texts = (f"{line.opcode}({line.rest}" for line in lines)
        found = [int(constant[1]) for text in texts if (constant := _CONSTANT.search(text))]
        return max(found, default=1)

    def executed(self, computation: str = "", times: int = 1) -> Iterator[tuple[Instruction, int]]:
        """Yields what is launched, with how often: fusions as one, bodies of loops one by one."""
        for instruction in self.computations[computation]:
            if instruction.opcode in ("while", "conditional", "call"):
                trips = self.trip_count(instruction) if instruction.opcode == "while" else 1
                for name in instruction.called:
                    yield from self.executed(name, times * trips)
            else:
                yield instruction, times

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yields an instruction and all that it runs."""
        yield instruction
        for name in instruction.called:
            for each in self.computations[name]:
                yield from self.inside(each)


def shape_bytes(shape: str) -> float:
    """Returns the bytes of one or several arrays: 4096 for "f32[8,128]{1,0}"."""
    total = 0.0
    for kind, sides in SHAPE.findall(shape):
        bits = 8 if kind == "pred" else int(_BITS.match(kind)[2] or 0)  # token[] has none
        total += bits / 8 * math.prod(int(side) for side in sides.split(",") if side)
    return total
