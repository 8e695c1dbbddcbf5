"""Plans a training step on a TPU slice: python -m experiments.plan --config=FILE
--topology=v4:8x8x8 [--config.key=value ...]

Compiles the very step that `experiments.train` runs, for a slice that need not be at hand, and
prints its memory, operations and messages by device, and how long it takes at best. Needs no data,
no tokenizer and no weights. The TPU compiler comes with `pip install 'rudolph-jax[tpu]'`; without
it --topology=cpu:8 compiles for pretended CPU devices.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import jax

from clip_jax.cli import Parser
from clip_jax.errors import InputError
from clip_jax.progress import elapsed_lines
from clip_jax.terminal_table import print_table
from experiments.cli.command_line import parse_command_line
from experiments.cli.exit_status import exit_status
from experiments.config.run import TrainConfig
from experiments.planning.chips import CHIPS, Chip, chip_named
from experiments.planning.cycles import CLOCKS
from experiments.planning.plan import Plan, make_plan
from experiments.planning.search import search
from experiments.planning.topology import FORM, slice_devices

Row = tuple[str, str]


def run(argv: Sequence[str]) -> None:
    args, others = _parser().parse_known_args(argv)
    if args.topology is None:
        raise InputError(f"--topology is needed: {FORM}")
    if args.full and (args.quick or args.search):
        raise InputError("--full goes with neither --quick nor --search, whose cycles mean nothing")
    if not 0 < args.mfu <= 1:
        raise InputError(f"--mfu is {args.mfu}; expected a share, above 0 to 1")
    config, _ = parse_command_line([*others, "--workdir=."])
    chip = find_chip(args.topology, args.chip)
    jax.config.update("jax_platforms", "cpu")
    devices = slice_devices(args.topology)
    if args.search:
        if chip is None:
            raise InputError("--search compares times; choose a --chip for CPU devices")
        with elapsed_lines(f"compiling variants for {len(devices)} devices"):
            config, plan = search(
                config, devices, chip, mfu=args.mfu, limit=args.limit, tell=_tell_variant
            )
    else:
        generation = _generation(args.topology) if args.full else ""
        with elapsed_lines(f"compiling the step for {len(devices)} devices"):
            plan = make_plan(
                config, devices, chip, mfu=args.mfu, quick=args.quick, generation=generation
            )
    if args.json:
        print(json.dumps(plan.to_dict()))
    else:
        title, rows = describe_run(config, plan, args.topology), plan_rows(plan, chip)
        print_table(describe(title, rows), ("", ""), rows, title=title)


def _generation(topology: str) -> str:
    name = topology.partition(":")[0]
    if name not in CLOCKS:
        raise InputError(
            f"--full needs a TPU compiler's cycles, and --topology is {topology!r}; expected "
            f"one of {', '.join(CLOCKS)}"
        )
    return name


def find_chip(topology: str, name: str) -> Chip | None:
    """The chip that is named, else the topology's own; pretended devices have none."""
    generation = topology.partition(":")[0]
    if not name and generation not in CHIPS:
        return None
    return chip_named(name or generation)


def describe(title: str, rows: Sequence[Row]) -> str:
    """Lines of text for a person."""
    lines = (f"{name:<22}{value}" if value else name for name, value in rows)
    return "\n".join((title, *lines))


def describe_run(config: TrainConfig, plan: Plan, topology: str) -> str:
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    return (
        f"{topology}: mesh {mesh}; remat {plan.remat}, {plan.grad_accum_steps} micro-batches; "
        f"batch {config.data.batch_size:,}"
    )


def plan_rows(plan: Plan, chip: Chip | None) -> list[Row]:
    """(name, value) of what was planned; a section's head has no value."""
    rows = [
        ("parameters", f"{plan.parameters:,}"),
        ("bytes per device", ""),
        ("  parameters", _bytes(plan.parameter_bytes)),
        ("  optimiser state", _bytes(plan.optimizer_bytes)),
        ("  batch", _bytes(plan.batch_bytes)),
        ("  temporaries", _bytes(plan.temporary_bytes)),
        ("  peak", f"{_bytes(plan.peak_bytes)}{_fit(plan, chip)}"),
        ("FLOPs per device and step", ""),
        ("  of the model", f"{plan.model_flops:.3e}"),
        ("  with remat", f"{plan.executed_flops:.3e}"),
    ]
    if plan.counted_flops is not None:
        rows.append(("  XLA, loops once", f"{plan.counted_flops:.3e}"))
    if plan.sent_bytes is not None:
        rows.append(("bytes that a device sends in a step", ""))
        rows += [(f"  {kind}", _bytes(size)) for kind, size in sorted(plan.sent_bytes.items())]
    if plan.work is not None:
        rows.append(("estimated by the compiler's cycles, for each device and step", ""))
        rows += [
            (
                f"  {kind}",
                f"{1000 * cost['seconds']:9.2f} ms {cost['size'] / 1e9:8.2f} GB "
                f"{cost['launches']:6.0f} launches",
            )
            for kind, cost in plan.work.items()
        ]
        rows.append(("step time", f"{plan.step_seconds:.3f} s, MFU {plan.mfu:.0%}"))
    elif plan.step_seconds is not None:
        rows += [
            ("step time at best", f"{plan.step_seconds:.3f} s, MFU {plan.mfu:.0%}"),
            ("  to compute", f"{plan.compute_seconds:.3f} s"),
            ("  to update", f"{plan.update_seconds:.3f} s"),
            ("  to send", f"{plan.message_seconds:.3f} s"),
        ]
    return rows


def _fit(plan: Plan, chip: Chip | None) -> str:
    if chip is None:
        return ""
    verdict = "fits" if plan.fits else "does not fit"
    return f"; {verdict}, a chip has {_bytes(chip.hbm_bytes)}"


def _bytes(size: float | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.3f} GB"


def _tell_variant(config: TrainConfig, plan: Plan) -> None:
    time = f"{plan.step_seconds:.3f} s" if plan.fits else "does not fit"
    print(
        f"{plan.mesh} remat={plan.remat} grad_accum_steps={plan.grad_accum_steps}: "
        f"{_bytes(plan.peak_bytes)}, {time}",
        file=sys.stderr,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.plan", description=__doc__, allow_abbrev=False
    )
    add: Any = parser.add_argument
    add("--topology", help=FORM)
    add("--chip", default="", help="whose peak numbers to use, " + ", ".join(CHIPS))
    add("--mfu", type=float, default=0.5, help="share of the peak at which operations run")
    add("--quick", action="store_true", help="let the compiler take less time over fast code")
    add("--full", action="store_true",
        help="compile at full effort and estimate the step by the compiler's cycles; takes minutes")
    add("--search", action="store_true", help="try meshes, remat policies and micro-batches")
    add("--limit", type=int, default=40, help="compilations that a search makes at most")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(argv), argv)


if __name__ == "__main__":
    sys.exit(main())
