"""Drawing: codes a second in the middle of a picture, sampling included."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks.options import Options, numbers, words
from benchmarks.peer import Peer, alternate
from benchmarks.random_models import original_folder, rudolph_folder
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from clip_jax.errors import InputError
from rudolph_jax.config import PRESETS, RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_kinds
from rudolph_jax.windows import window

CHECKED = 6  # codes that must be the same before anything is timed
# Of the logits' spread, by which those of another implementation may differ.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
SECONDS = 1.0  # about what a turn takes


class Contender(NamedTuple):
    """module: of `peers`. how: arguments of its `open`, besides the batch."""

    module: str
    dtype: str
    how: Mapping[str, object]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument("--batches", type=numbers, default=(1, 4, 32), help="(1,4,32)")
    parser.add_argument("--dtypes", type=words, default=("float32", "bfloat16"))


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """A table for each batch size."""
    ours = rudolph_folder(args.preset, options.work)
    original = original_folder(ours) if options.original_python or options.torch else None
    config = PRESETS[args.preset]
    for batch in args.batches:
        contenders = {}
        ported = {"folder": str(ours), "original": str(original), "compiled": True}
        if options.original_python:
            contenders["original float32"] = Contender(
                "original_decode", "float32", {"folder": str(original)}
            )
        for dtype in args.dtypes:
            given = {"folder": str(ours), "dtype": dtype}
            if options.torch:
                contenders[f"torch {dtype}"] = Contender("torch_decode", dtype, {**ported, **given})
            contenders[f"ours {dtype}"] = Contender("ours_decode", dtype, given)
            if dtype == args.dtypes[0]:
                contenders[f"ours {dtype}, all keys kept"] = Contender(
                    "ours_decode", dtype, {**given, "trimmed": False}
                )
        yield _table(config, batch, contenders, options, machine)


def _table(
    config: RudolphConfig,
    batch: int,
    contenders: dict[str, Contender],
    options: Options,
    machine: Machine,
) -> Table:
    place = config.image_tokens_per_side**2 // 2
    with ExitStack() as stack:
        peers, found = {}, {}
        for name, (module, _, how) in contenders.items():
            own = options.original_python if module.startswith("original") else None
            peer = peers[name] = stack.enter_context(Peer(module, own))
            peer.ask("open", batch=batch, place=place, **how)
            found[name] = peer.ask("first_codes", count=CHECKED).value
        base = next(iter(contenders))
        drifts = {name: drift(found[base], found[name]) for name in peers}
        for name, contender in contenders.items():
            if drifts[name] > TOLERANCE[contender.dtype]:
                raise InputError(
                    f"{name}: logits differ from those of {base} by {drifts[name]:.1e} of their "
                    f"spread; expected at most {TOLERANCE[contender.dtype]}"
                )
            if contender.dtype == "float32" and found[name]["codes"] != found[base]["codes"]:
                raise InputError(f"{name}: draws other codes than {base}; nothing was timed")
        counts = {name: _count(peer, place) for name, peer in peers.items()}
        timings = alternate(peers, "draw", counts, options.rounds)
    rows = []
    for name, timing in timings.items():
        dtype = contenders[name].dtype
        least = machine.seconds(dtype, *step_cost(config, batch, dtype))
        rows.append(
            Row(name, batch / timing.wall, batch / timing.processor, batch / least, drifts[name])
        )
    return Table(f"RUDOLPH draws {batch} at once", "codes", base, rows)


def _count(peer: Peer, place: int) -> int:
    """Codes that take about SECONDS: as many as fit what is left of the picture."""
    peer.ask("draw", count=1)
    seconds = peer.ask("draw", count=1).wall
    return int(min(max(SECONDS / seconds, 1), place - 1))


def drift(expected: dict[str, list], found: dict[str, list]) -> float:
    """The largest difference of logits, as a share of their standard deviation."""
    a, b = np.asarray(expected["logits"]), np.asarray(found["logits"])
    return float(np.abs(a - b).max() / a.std())


def step_cost(config: RudolphConfig, batch: int, dtype: str) -> tuple[float, float]:
    """(operations, bytes read) of one step at least: kernels once, keys and values of each."""
    D, layout = config.width, Layout(config)
    width = jnp.dtype(dtype).itemsize
    columns = layout.code_logits.stop - layout.code_logits.start
    kernels = config.layers * 12 * D * D + columns * D
    # Keys that lie in the segment, of each sample; those of the prompt, of all together.
    own = sum(int(window(config, kind, "image").size) for kind in layer_kinds(config))
    prompt = config.layers * config.left_text_length
    flops = 2 * kernels * batch + 4 * D * (own + prompt) * batch
    return flops, width * (kernels + 2 * D * (own * batch + prompt))
