"""Plans one training step for each device: memory, FLOPs, messages, best time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from clip_jax.fused.tpu import choose_block, kept_blocks
from experiments.config.run import TrainConfig
from experiments.planning.chips import Chip
from experiments.planning.collectives import sent_bytes
from experiments.planning.cycles import estimate
from experiments.planning.flops import matmul_flops
from experiments.planning.step import device_bytes, trace_step
from rudolph_jax.config import RudolphConfig
from rudolph_jax.masks import layer_mask_types, mask

USED = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
EFFORT = "jax_exec_time_optimization_effort"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes and floating-point operations are one device's, seconds a step's.

    parameters: their number. model_flops: of the model alone; executed_flops: with what is run
        again to save memory. counted_flops: XLA's count, in which a loop's body counts once.
    peak_bytes: of everything that is held at once; temporary_bytes: without what the step is given.
    counted_flops, temporary_bytes, sent_bytes: None where the compiler found memory too short.
    fits: None without a chip.
    compute_seconds: executed operations at the given share of the chip's peak. update_seconds:
        state read and written at full memory bandwidth. message_seconds: what is sent at full
        bandwidth. step_seconds: the largest of them, or with `work` the compiler's estimate. mfu:
        what model operations are of the peak in that time.
    work: by kind of work the seconds, bytes and launches that the compiler estimates at full effort
        (`cycles.py`); None: not asked for.
    """

    mesh: dict[str, int]
    grad_accum_steps: int
    remat: str
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    batch_bytes: int
    temporary_bytes: int | None
    peak_bytes: int
    fits: bool | None
    model_flops: float
    executed_flops: float
    counted_flops: float | None
    sent_bytes: dict[str, float] | None
    compute_seconds: float | None
    update_seconds: float | None
    message_seconds: float | None
    step_seconds: float | None
    mfu: float | None
    compile_seconds: float
    work: dict[str, dict[str, float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def make_plan(
    config: TrainConfig,
    devices: Sequence[jax.Device],
    chip: Chip | None,
    *,
    mfu: float = 0.5,
    quick: bool = False,
    generation: str = "",
) -> Plan:
    """Compiles the config's step for these devices.

    mfu: share of the chip's peak at which operations run that are run at all. quick: the compiler
    takes less time over fast code. generation: of TPUs, for an estimate by the compiler's cycles
    in place of `mfu`; "": none.
    """
    step = trace_step(config, devices)
    executed = matmul_flops(step.traced.jaxpr) / len(devices)
    start = time.perf_counter()
    with _compilation(quick):
        found = _compile(step.traced)
    compile_seconds = time.perf_counter() - start
    state = {key: leaf for key, leaf in step.state.items() if key != "rng"}
    parameter_bytes = device_bytes(state["params"])
    optimizer_bytes = device_bytes(state) - parameter_bytes
    sent = None if found.hlo is None else sent_bytes(found.hlo, len(devices))
    model = _model_flops(config, devices)
    seconds = _bounds(executed, parameter_bytes + optimizer_bytes, sent, chip, mfu)
    longest = max(seconds.values()) if seconds and sent is not None else None
    work = None
    if generation and chip is not None and found.hlo is not None:
        estimated = estimate(found.hlo, generation, chip, len(devices), kept_share(config))
        longest = estimated.seconds
        work = {kind: dataclasses.asdict(cost) for kind, cost in estimated.costs.items()}
        if "message" in work:
            work["message"]["seconds"] = estimated.exposed_seconds
    return Plan(
        mesh=dict(step.mesh.shape),
        grad_accum_steps=config.grad_accum_steps,
        remat=config.compute.remat,
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state["params"])),
        parameter_bytes=parameter_bytes,
        optimizer_bytes=optimizer_bytes,
        batch_bytes=device_bytes(step.batch),
        temporary_bytes=found.temporary_bytes,
        peak_bytes=found.peak_bytes,
        fits=None if chip is None else found.hlo is not None and found.peak_bytes < chip.hbm_bytes,
        model_flops=model,
        executed_flops=executed,
        counted_flops=found.flops,
        sent_bytes=sent,
        compute_seconds=seconds.get("compute"),
        update_seconds=seconds.get("update"),
        message_seconds=seconds.get("message"),
        step_seconds=longest,
        mfu=model / (longest * chip.flops) if chip and longest else None,
        compile_seconds=compile_seconds,
        work=work,
    )


def kept_share(config: TrainConfig) -> float:
    """Returns the share of a step's blocks of attention that the model's masks keep.

    Of ruCLIP it is that of the image tower, nearly all of the work: all.
    """
    if not isinstance(config.model, RudolphConfig):
        return 1.0
    shares = []
    for mask_type in layer_mask_types(config.model):
        allowed = mask(config.model, mask_type)
        side = choose_block(allowed)
        shares.append(kept_blocks(allowed, side) / math.ceil(len(allowed) / side) ** 2)
    return sum(shares) / len(shares)


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """hlo, flops, temporary_bytes: None where the compiler gave up."""

    peak_bytes: int
    temporary_bytes: int | None = None
    flops: float | None = None
    hlo: str | None = None


def _compile(traced: Any) -> _Compiled:
    try:
        compiled = traced.lower().compile()
    except JaxRuntimeError as error:
        used = USED.search(str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or not used:
            raise
        return _Compiled(int(float(used[1]) * UNITS[used[2]]))
    memory = compiled.memory_analysis()
    return _Compiled(
        memory.peak_memory_in_bytes,
        max(memory.peak_memory_in_bytes - memory.argument_size_in_bytes, 0),
        compiled.cost_analysis()["flops"],
        compiled.as_text(),
    )


def _model_flops(config: TrainConfig, devices: Sequence[jax.Device]) -> float:
    """Returns the FLOPs of one forward and one backward pass without recomputation.

    Attention counts all pairs of tokens, whatever the masks; the head what each segment needs.
    """
    compute = dataclasses.replace(config.compute, remat="none", fused_attention=False)
    plain = dataclasses.replace(config, grad_accum_steps=1, compute=compute)
    return matmul_flops(trace_step(plain, devices).traced.jaxpr) / len(devices)


def _bounds(
    flops: float, state: int, sent: dict[str, float] | None, chip: Chip | None, mfu: float
) -> dict[str, float]:
    if chip is None:
        return {}
    bounds = {"compute": flops / (mfu * chip.flops), "update": 2 * state / chip.hbm_bandwidth}
    if sent is not None:
        bounds["message"] = sum(sent.values()) / chip.ici_bandwidth
    return bounds


def _compilation(quick: bool) -> contextlib.AbstractContextManager[None]:
    """Returns the context of a compilation; quick: less time is taken over fast code."""
    if not quick:
        return contextlib.nullcontext()
    # JAX 0.12 has levels in place of the effort from -1 to 1.
    if hasattr(jax.config, EFFORT):
        return _setting(EFFORT, -1.0)
    return _setting("jax_optimization_level", "O1")


@contextlib.contextmanager
def _setting(name: str, value: float | str) -> Iterator[None]:
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)
