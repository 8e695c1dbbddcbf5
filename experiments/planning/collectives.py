"""Counts the bytes that devices send in a compiled program, from its HLO text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict

from experiments.planning.hlo_program import Instruction, Program, shape_bytes

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# The TPU compiler spreads a collective over several fusions: one that starts it, products that
# overlap with it, and one that ends it, each of which names it.
STARTS, ENDS, CONTINUES = "async-collective-start", "async-collective-done", "async_collective_fus"
GROUPS_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
GROUPS_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
GROUPS_ON_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


def sent_bytes(hlo: str, devices: int) -> dict[str, float]:
    """Bytes that one device sends in a run, by kind of collective; kinds that are absent are left
    out.

    A loop's body counts as often as it runs. Of n devices, each sends (n - 1) / n of the array in
    an exchange around a ring, twice that where a sum is to be everywhere.
    """
    return {kind: size for kind, size in _Messages(Program(hlo), devices).sent("").items() if size}


@dataclasses.dataclass(frozen=True)
class Message:
    """A collective of one computation. size: bytes that a device sends, each time.

    between: names of the instructions from its start to its end, which may run meanwhile.
    """

    name: str
    size: float
    between: tuple[str, ...]


def messages(program: Program, devices: int, computation: str) -> list[Message]:
    """Returns the collectives of a computation, whose lines are in the order of the schedule."""
    lines, sent_by = program.computations[computation], _Messages(program, devices)
    sizes = {line.name: shape_bytes(line.shape) for line in lines}
    ends = {line.operands[0]: i for i, line in enumerate(lines)
            if line.opcode.endswith("-done") and line.operands}  # fmt: skip
    ends |= {line.name.replace(ENDS, STARTS): i for i, line in enumerate(lines)
             if line.name.startswith(ENDS)}  # fmt: skip
    found = []
    for i, line in enumerate(lines):
        kind = line.opcode.removesuffix("-start")
        if kind in KINDS:
            size = sum(sizes.get(name, 0) for name in line.operands)
            sent = sent_by.bytes_sent(kind, size, line.rest)
            meanwhile = lines[i + 1 : ends.get(line.name, i + 1)]
            found.append(Message(line.name, sent, tuple(one.name for one in meanwhile)))
        elif line.opcode == "fusion" and not continues(line):
            # The TPU compiler's reduce-scatters are fusions, too.
            sent = sum(sum(sent_by.sent(name).values()) for name in line.called)
            meanwhile = lines[i + 1 : ends.get(line.name, i + 1)]
            found += [Message(line.name, sent, tuple(one.name for one in meanwhile))] * bool(sent)
    return found


def continues(line: Instruction) -> bool:
    """Returns whether a fusion continues or ends a collective that another one started."""
    return line.name.startswith(ENDS) or any(name.startswith(CONTINUES) for name in line.called)


class _Messages:
    def __init__(self, program: Program, devices: int) -> None:
        self._program, self._devices = program, devices
        self._known: dict[str, dict[str, float]] = {}

    def sent(self, computation: str) -> dict[str, float]:
        if computation not in self._known:
            self._known[computation] = self._sum(computation)
        return self._known[computation]

    def _sum(self, computation: str) -> dict[str, float]:
        total: dict[str, float] = defaultdict(float)
        lines = self._program.computations[computation]
        sizes = {line.name: shape_bytes(line.shape) for line in lines}
        for line in lines:
            kind = line.opcode.removesuffix("-start")
            if kind == "all-reduce" and "all-reduce-scatter" in computation:
                kind = "reduce-scatter"  # as the TPU compiler writes one
            if kind in KINDS:
                size = sum(sizes.get(name, 0) for name in line.operands)
                total[kind] += self.bytes_sent(kind, size, line.rest)
            times = self._program.trip_count(line) if line.opcode == "while" else 1
            for called in () if continues(line) else line.called:
                for kind, size in self.sent(called).items():
                    total[kind] += times * size
        return dict(total)

    def bytes_sent(self, kind: str, size: float, rest: str) -> float:
        if kind == "collective-permute":
            return size
        n = self._group(rest)
        if kind == "all-gather":
            return (n - 1) * size
        return (2 if kind == "all-reduce" else 1) * (n - 1) / n * size

    def _group(self, rest: str) -> int:
        if counted := GROUPS_COUNTED.search(rest):
            return int(counted[1])
        if on_mesh := GROUPS_ON_MESH.search(rest):
            sizes = dict(axis.split("=") for axis in on_mesh[1].split(","))
            return math.prod(int(sizes[axis]) for axis in on_mesh[2].split(",") if axis)
        listed = GROUPS_LISTED.search(rest)
        return len(listed[1].split(",")) if listed and listed[1] else self._devices
