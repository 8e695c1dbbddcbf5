"""Counts the bytes that devices send in a compiled program, from its HLO text."""

from __future__ import annotations

import math
import re
from collections import defaultdict

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = re.compile(r"([a-z]+)(\d+)?")
SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][a-z\-]*)\((.*)$")
CALLED = re.compile(r"(?:calls|body|to_apply)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
CONDITION = re.compile(r"condition=%?([\w.\-]+)")
TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')
GROUPS_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
GROUPS_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
GROUPS_ON_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
CONSTANT = re.compile(r"constant\((\d+)\)")


def sent_bytes(hlo: str, devices: int) -> dict[str, float]:
    """Bytes that one device sends in a run, by kind of collective; kinds that are absent are left
    out.

    A loop's body counts as often as it runs. Of n devices, each sends (n - 1) / n of the array in
    an exchange around a ring, twice that where a sum is to be everywhere.
    """
    return {kind: size for kind, size in _Program(hlo, devices).sent(None).items() if size}


class _Program:
    def __init__(self, hlo: str, devices: int) -> None:
        self._devices = devices
        self._lines: dict[str | None, list[re.Match[str]]] = defaultdict(list)
        self._known: dict[str | None, dict[str, float]] = {}
        name: str | None = ""
        for line in hlo.splitlines():
            if head := COMPUTATION.match(line):
                name = None if head[1] else head[2]  # None: where the program begins
            elif instruction := INSTRUCTION.match(line):
                self._lines[name].append(instruction)

    def sent(self, computation: str | None) -> dict[str, float]:
        if computation not in self._known:
            self._known[computation] = self._sum(computation)
        return self._known[computation]

    def _sum(self, computation: str | None) -> dict[str, float]:
        total: dict[str, float] = defaultdict(float)
        sizes = {line[1]: _bytes(line[2]) for line in self._lines[computation]}
        for line in self._lines[computation]:
            name, _, operation, rest = line.groups()
            kind = operation.removesuffix("-start")
            if kind == "all-reduce" and computation and "all-reduce-scatter" in computation:
                kind = "reduce-scatter"  # as the TPU compiler writes one
            if kind in KINDS:
                operands = re.findall(r"%([\w.\-]+)", rest.partition(")")[0])
                total[kind] += self._sent(kind, sum(sizes.get(x, 0) for x in operands), rest)
            times = self._trip_count(rest) if operation == "while" else 1
            for called in _called(rest):
                for kind, size in self.sent(called).items():
                    total[kind] += times * size
        return dict(total)

    def _sent(self, kind: str, size: float, rest: str) -> float:
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

    def _trip_count(self, rest: str) -> int:
        if known := TRIPS.search(rest):
            return int(known[1])
        # A counted loop's condition compares with one constant.
        condition = CONDITION.search(rest)
        lines = self._lines[condition[1]] if condition else []
        found = [int(c[1]) for line in lines if (c := CONSTANT.search(line[0]))]
        return max(found, default=1)


def _called(rest: str) -> list[str]:
    names = CALLED.findall(rest)
    for branches in BRANCHES.findall(rest):
        names += [name.strip().lstrip("%") for name in branches.split(",")]
    return names


def _bytes(shape: str) -> float:
    """Returns the bytes of one or several arrays: 4096 for "f32[8,128]{1,0}"."""
    total = 0.0
    for kind, sides in SHAPE.findall(shape):
        bits = 8 if kind == "pred" else int(BITS.match(kind)[2] or 0)  # token[] has none
        total += bits / 8 * math.prod(int(side) for side in sides.split(",") if side)
    return total
