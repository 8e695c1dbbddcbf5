"""Estimates how long a compiled TPU program takes, from what its compiler wrote into it.

The compiler gives each instruction `estimated_cycles`, at full effort alone in earnest: a plain
bfloat16 product has 85 % of the peak by them. They leave out overlap of one kernel with another,
most latencies, and Pallas kernels, which are counted by their bytes and products instead.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

from experiments.planning.chips import Chip
from experiments.planning.collectives import KINDS as COLLECTIVES
from experiments.planning.collectives import continues, messages
from experiments.planning.hlo_program import SHAPE, Instruction, Program, shape_bytes

CLOCKS = {"v4": 1.05e9, "v5e": 1.5e9, "v5p": 1.75e9, "v6e": 1.75e9}  # Hz
KERNEL_PEAK = 0.4  # share of the peak at which a Pallas kernel multiplies, until measured
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all",
         "partition-id", "replica-id"}  # fmt: skip
# Products of float[T, K] with float[T, K], or float[T, T] with it, that a kernel of splash
# attention makes: by a part of its name.
_SPLASH_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
# The same of attention in a single block, and how many times its width its result has.
_SINGLE_BLOCK_PRODUCTS = {
    "single_block_attention_forward": (2, 1), "single_block_attention_backward": (5, 3)
}  # fmt: skip
_LANES = 128  # a product fills whole tiles of so many tokens
_HASHES = 8  # shifts or xors of a fusion that draws random numbers: a threefry hash has 20 rounds


@dataclasses.dataclass(frozen=True)
class Cost:
    """seconds: by the cycles, or as a kernel's. size: bytes of operands and results. launches."""

    seconds: float = 0.0
    size: float = 0.0
    launches: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds, self.size + other.size, self.launches + other.launches
        )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A run of a program on one device.

    costs: by kind of work, the longest first. exposed_seconds: of messages, what no other work
    covers between their start and their end.
    """

    costs: dict[str, Cost]
    exposed_seconds: float

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.costs.values()) + self.exposed_seconds


def estimate(
    hlo: str, generation: str, chip: Chip, devices: int = 1, kept_share: float = 1.0
) -> Estimate:
    """Estimates one run by the compiler's cycles.

    generation: one of CLOCKS. devices: of the program. kept_share: the part of all blocks of
    queries and keys that the masks of fused attention keep.
    """
    program, costs = Program(hlo), defaultdict(Cost)
    lines = {line.name: line for listed in program.computations.values() for line in listed}

    def seconds_of(instruction: Instruction) -> tuple[str, float, float]:
        size = shape_bytes(instruction.shape) + sum(
            shape_bytes(lines[name].shape) for name in instruction.operands if name in lines
        )
        kind = _kind(program, instruction)
        if kind == "message":  # counted by what it sends
            return kind, 0.0, size
        if kind == "kernel":
            return kind, _kernel_seconds(instruction, size, chip, kept_share), size
        cycles = _CYCLES.search(instruction.rest)
        return kind, int(cycles[1]) / CLOCKS[generation] if cycles else 0.0, size

    for instruction, times in program.executed():
        if instruction.opcode not in _FREE:
            kind, seconds, size = seconds_of(instruction)
            costs[kind] += Cost(times * seconds, times * size, times)
    exposed = 0.0
    for computation, times in _runs(program):
        for message in messages(program, devices, computation):
            covered = sum(seconds_of(lines[name])[1] for name in message.between)
            exposed += times * max(message.size / chip.ici_bandwidth - covered, 0.0)
    ordered = dict(sorted(costs.items(), key=lambda item: -item[1].seconds))
    return Estimate(ordered, exposed)


def _runs(program: Program, computation: str = "", times: int = 1) -> Iterator[tuple[str, int]]:
    """Yields the computations whose lines are launched one by one, with how often each runs."""
    yield computation, times
    for line in program.computations[computation]:
        if line.opcode in ("while", "conditional", "call"):
            trips = program.trip_count(line) if line.opcode == "while" else 1
            for name in line.called:
                yield from _runs(program, name, times * trips)


def hashed_products(hlo: str) -> int:
    """Counts fusions that hold both a product and a hash of random numbers.

    Where a dropout's draw is fused into its users, each of them hashes again.
    """
    program = Program(hlo)
    return sum(
        times for one, times in program.executed() if _kind(program, one) == "product and hash"
    )


def float_squares(hlo: str, length: int) -> list[str]:
    """Returns the float arrays of a program whose last two axes are both of this length."""
    found = {
        f"{kind}[{sides}]" for kind, sides in SHAPE.findall(hlo)
        if kind in ("f32", "bf16", "f16") and sides.split(",")[-2:] == [str(length)] * 2
    }  # fmt: skip
    return sorted(found)


def _kind(program: Program, instruction: Instruction) -> str:
    opcode = instruction.opcode
    if opcode == "custom-call" and "tpu_custom_call" in instruction.rest:
        return "kernel"
    if opcode.removesuffix("-start").removesuffix("-done") in COLLECTIVES:
        return "message"
    opcodes = [each.opcode for each in program.inside(instruction)]
    if set(opcodes) & set(COLLECTIVES) and not continues(instruction):
        return "message"
    product = {"convolution", "dot"} & set(opcodes)
    hashed = sum(each in ("xor", "shift-right-logical") for each in opcodes) > _HASHES
    if product:
        return "product and hash" if hashed else "product"
    if hashed or "rng" in opcode:
        return "random numbers"
    moved = {"parameter", "copy", "bitcast", "transpose", "convert", "fusion", "copy-start",
             "copy-done"}  # fmt: skip
    if opcode in ("fusion", "copy") and set(opcodes) <= moved:
        return "layout"
    if "reduce" in opcodes:
        return "reduction"
    return "elementwise" if opcode == "fusion" else opcode


def _kernel_seconds(
    instruction: Instruction, size: float, chip: Chip, kept_share: float
) -> float:
    """Returns the longer of a kernel's bytes at full bandwidth and its products."""
    flops = _single_block_flops(instruction) or _splash_flops(instruction, kept_share)
    return max(size / chip.hbm_bandwidth, flops / (KERNEL_PEAK * chip.flops))


def _single_block_flops(instruction: Instruction) -> float:
    """Counts all pairs of tokens, whatever the mask; 0 of another kernel."""
    for name, (products, widths) in _SINGLE_BLOCK_PRODUCTS.items():
        if name in instruction.name:
            sides = SHAPE.findall(instruction.shape)[0][1]
            B, T, W = (int(side) for side in sides.split(","))
            T = -(-T // _LANES) * _LANES
            return products * 2 * B * T * T * W / widths
    return 0.0


def _splash_flops(instruction: Instruction, kept_share: float) -> float:
    products = next(
        (n for name, n in _SPLASH_PRODUCTS.items() if name in instruction.name), 0
    )
    sides = max(
        ([int(side) for side in sides.split(",")] for _, sides in SHAPE.findall(instruction.shape)
         if sides.count(",") == 3),
        key=math.prod, default=[0, 0, 0, 0],
    )  # fmt: skip
    B, H, T = sides[:3]
    K = min(
        (int(sides.split(",")[3]) for _, sides in SHAPE.findall(instruction.shape)
         if sides.count(",") == 3), default=0,
    )  # fmt: skip
    return products * 2 * B * H * T * T * K * kept_share
