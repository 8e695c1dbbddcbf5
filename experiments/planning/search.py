"""The quickest way to run a config on a slice: meshes, rematerialisation, micro-batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax

from clip_jax.errors import InputError
from experiments.config.run import MeshConfig, TrainConfig
from experiments.planning.chips import Chip
from experiments.planning.plan import Plan, make_plan

REMATS = ("none", "dots", "block")
LARGEST_SPLIT = 64  # of parameters over fsdp, and 8 of products over tensor
LARGEST_TENSOR = 8


def variants(config: TrainConfig, devices: int) -> Iterator[TrainConfig]:
    """The config on every mesh, with every policy and power of two of micro-batches."""
    for tensor in _powers(min(devices, LARGEST_TENSOR)):
        for fsdp in _powers(min(devices // tensor, LARGEST_SPLIT)):
            data, left = divmod(devices, fsdp * tensor)
            if left:
                continue
            for remat in REMATS:
                for grad_accum_steps in _powers(config.data.batch_size // (data * fsdp)):
                    if config.data.batch_size % (data * fsdp * grad_accum_steps):
                        continue
                    yield dataclasses.replace(
                        config,
                        mesh=MeshConfig(data, fsdp, tensor),
                        compute=dataclasses.replace(config.compute, remat=remat),
                        grad_accum_steps=grad_accum_steps,
                    )


def search(
    config: TrainConfig,
    devices: Sequence[jax.Device],
    chip: Chip,
    *,
    mfu: float,
    limit: int,
    tell: Callable[[TrainConfig, Plan | None], None] = lambda config, plan: None,
) -> tuple[TrainConfig, Plan]:
    """The variant with the lowest estimated step time of those that fit, ties to less memory.

    Of each mesh and policy the fewest micro-batches that fit are looked for, since more of them
    only cost time; `limit` compilations are made at most. None that fits raises InputError.
    """
    best: tuple[TrainConfig, Plan] | None = None
    settled: set[tuple[MeshConfig, str]] = set()
    for variant in sorted(variants(config, len(devices)), key=_priority):
        key = variant.mesh, variant.compute.remat
        if key in settled or not limit:
            continue
        try:
            plan = make_plan(variant, devices, chip, mfu=mfu, quick=True)
        except InputError:  # a size that the mesh does not divide
            settled.add(key)
            continue
        limit -= 1
        tell(variant, plan)
        if not plan.fits:
            continue
        settled.add(key)
        if best is None or _cost(plan) < _cost(best[1]):
            best = variant, plan
    if best is None:
        raise InputError(
            "no mesh, remat and grad_accum_steps that were tried fit; use more devices, a smaller "
            "batch "
            "or a larger --limit"
        )
    return best


def _priority(config: TrainConfig) -> tuple[int, ...]:
    """Orders candidates: few micro-batches with enough rows, little communication."""
    mesh = config.mesh
    rows = config.data.batch_size // (mesh.data * mesh.fsdp * config.grad_accum_steps)
    return mesh.tensor, abs(mesh.fsdp - 8), REMATS.index(config.compute.remat), -rows


def _cost(plan: Plan) -> tuple[float, int]:
    return plan.step_seconds, plan.peak_bytes


def _powers(largest: int) -> list[int]:
    return [2**i for i in range(max(largest, 1).bit_length())]
