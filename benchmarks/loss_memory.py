"""Memory of the losses over all pairs: python -m benchmarks.loss_memory [--batch 32768]

Compiles loss and gradient of every form for simulated CPU devices, runs none of them, and prints a
Markdown table of their temporaries per device.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from clip_jax.cli import Parser
from clip_jax.contrastive import FORMS, contrastive_loss, sigmoid_loss
from clip_jax.errors import InputError
from experiments.cli.exit_status import exit_status

# The whole batch on one device, an eighth of it on each of the others.
DEVICES = (1, 8, 16, 32, 64)
LOSSES = ("contrastive", "sigmoid")


def temporary_bytes(loss: str, form: str, batch: int, devices: int, width: int, tile: int) -> int:
    """Return bytes of a device's temporaries for loss and gradient, without inputs and outputs.

    batch: on all devices together, float32[batch, width] of images and of captions.
    """
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    sharded, replicated = PartitionSpec("data"), PartitionSpec()
    specs = (sharded, sharded, replicated, replicated)
    options = {"form": form, "tile": tile, "axis_name": "data"}

    def mean_loss(image, text, scale, bias):
        if loss == "contrastive":
            local = contrastive_loss(image, text, scale, **options)
        else:
            local = sigmoid_loss(image, text, scale, bias, **options)
        return lax.pmean(local, "data")

    mapped = jax.shard_map(mean_loss, mesh=mesh, in_specs=specs, out_specs=replicated)
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in zip([(batch, width)] * 2 + [()] * 2, specs, strict=True)
    ]
    step = jax.jit(jax.value_and_grad(mapped, argnums=(0, 1, 2, 3), has_aux=True))
    return step.lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def memory_table(batch: int, width: int, tile: int, devices: tuple[int, ...] = DEVICES) -> str:
    """Return Markdown: a row for each loss and form, a column for each number of devices, in MB."""
    shard = batch // 8
    titles = [f"{n} x {batch if n == 1 else shard:,}" for n in devices]
    lines = ["| loss | form | " + " | ".join(titles) + " |", "|---|---|" + "---|" * len(devices)]
    for loss in LOSSES:
        for form in FORMS:
            sizes = (
                temporary_bytes(loss, form, batch if n == 1 else n * shard, n, width, tile)
                for n in devices
            )
            cells = " | ".join(f"{size / 1e6:,.1f}" for size in sizes)
            lines.append(f"| {loss} | {form} | {cells} |")
    return "\n".join(lines)


def run(batch: int, width: int, tile: int) -> None:
    if batch < 8 or batch % 8:
        raise InputError(f"--batch is {batch}; expected a positive multiple of 8")
    for name, value in (("--width", width), ("--tile", tile)):
        if value < 1:
            raise InputError(f"{name} is {value}; expected a positive number")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    print(
        f"Temporaries per device in MB; devices x rows of each; width {width}, float32, tile {tile}"
        f", jax {jax.__version__}\n\n{memory_table(batch, width, tile)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks.loss_memory", description=__doc__)
    parser.add_argument("--batch", type=int, default=32768, help="on all devices, 1 or 8 (32768)")
    parser.add_argument("--width", type=int, default=512, help="of the embeddings (512)")
    parser.add_argument("--tile", type=int, default=1024, help="rows and columns of a tile (1024)")
    args = parser.parse_args(argv)
    run(args.batch, args.width, args.tile)


if __name__ == "__main__":
    sys.exit(main())
