"""Drawing: codes a second in the middle of a picture, sampling included."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from statistics import median

import jax.numpy as jnp

from benchmarks.contest import Contender, count_of, drift
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


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument("--batches", type=numbers, default=(1, 4, 32), help="(1,4,32)")
    parser.add_argument("--dtypes", type=words, default=("float32", "bfloat16"))
    parser.add_argument("--int8", action="store_true", help="time weights of eight bits too")


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
            if args.int8:
                contenders[f"ours {dtype}, int8 weights"] = Contender(
                    "ours_decode", dtype, {**given, "weights": "int8"}
                )
        yield _table(config, batch, contenders, options, machine)


def _table(
    config: RudolphConfig,
    batch: int,
    contenders: Mapping[str, Contender],
    options: Options,
    machine: Machine,
) -> Table:
    """Each beside the first, two at a time: all together would not fit the memory of a laptop."""
    (base, first), *others = contenders.items()
    place = config.image_tokens_per_side**2 // 2
    rows, base_rates = [], []
    with _opened(first, batch, place, options) as base_peer:
        expected = base_peer.ask("first_codes", count=CHECKED).value
        for name, contender in others:
            with _opened(contender, batch, place, options) as peer:
                found = peer.ask("first_codes", count=CHECKED).value
                if "weights" not in contender.how:  # those are not to give the same
                    _check(name, contender.dtype, base, expected, found)
                peers = {base: base_peer, name: peer}
                # As many as fit what is left of the picture.
                counts = {
                    each: min(count_of(peer, "draw", SECONDS), place - 1)
                    for each, peer in peers.items()
                }
                timings = alternate(peers, "draw", counts, options.rounds)
            beside, own = (
                (batch / timings[each].wall, batch / timings[each].processor)
                for each in (base, name)
            )
            base_rates.append(beside)
            rows.append(
                Row(
                    name, *own, beside, _roof(config, batch, contender.dtype, machine),
                    drift(expected["logits"], found["logits"]), timings[name].peak,
                )
            )  # fmt: skip
        peak = base_peer.ask("first_codes", count=CHECKED).peak
    rate, processor = (median(rates) for rates in zip(*base_rates, strict=True))
    roof = _roof(config, batch, first.dtype, machine)
    rows.insert(0, Row(base, rate, processor, roof=roof, peak=peak))
    return Table(f"RUDOLPH draws {batch} at once", "codes", base, rows)


def _opened(contender: Contender, batch: int, place: int, options: Options) -> Peer:
    original = contender.module.startswith("original")
    peer = Peer(contender.module, options.original_python if original else None)
    peer.ask("open", batch=batch, place=place, **contender.how)
    return peer


def _check(
    name: str, dtype: str, base: str, expected: dict[str, list], found: dict[str, list]
) -> None:
    """InputError where a peer draws something else than the base: its speed means nothing."""
    apart = drift(expected["logits"], found["logits"])
    if apart > TOLERANCE[dtype]:
        raise InputError(
            f"{name}: logits differ from those of {base} by {apart:.1e} of their spread; expected "
            f"at most {TOLERANCE[dtype]}"
        )
    if dtype == "float32" and found["codes"] != expected["codes"]:
        raise InputError(f"{name}: draws other codes than {base}; nothing was timed")


def _roof(config: RudolphConfig, batch: int, dtype: str, machine: Machine) -> float:
    return batch / machine.seconds(dtype, *step_cost(config, batch, dtype))


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
