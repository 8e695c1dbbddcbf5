"""Options of commands that enlarge the images that they write: --upscaler and --upscale."""

from __future__ import annotations

import argparse

from clip_jax.cli import any_path, positive_int
from clip_jax.config import Compute
from clip_jax.errors import InputError
from clip_jax.model_folder import read_config
from rudolph_jax.upscaler.config import UpscalerConfig
from rudolph_jax.upscaler.pretrained import KIND, PretrainedUpscaler, load_upscaler


def add_upscale_options(parser: argparse.ArgumentParser) -> None:
    """Adds --upscaler and --upscale to a command that writes images."""
    parser.add_argument(
        "--upscaler", type=any_path,
        help="enlarge the images with this super-resolution network",
    )  # fmt: skip
    parser.add_argument(
        "--upscale", type=positive_int, metavar="N",
        help="factor of the sides, which must be the network's (by default it is)",
    )  # fmt: skip


def check_upscale_options(args: argparse.Namespace) -> None:
    """Raises InputError before anything is loaded, unless the options fit each other."""
    if args.upscaler is None:
        if args.upscale is not None:
            raise InputError("--upscale needs a super-resolution network: --upscaler=FOLDER")
        return
    if args.prompts is not None:
        raise InputError(
            "--upscaler enlarges drawings of one text; with --prompts leave it out, and enlarge "
            "the images by python -m rudolph_jax upscale"
        )
    metadata = read_config(args.upscaler)
    if metadata["kind"] != KIND:
        raise InputError(
            f"{args.upscaler}: holds a model of kind {metadata['kind']!r}; expected {KIND!r}"
        )
    scale = UpscalerConfig.from_dict(metadata["config"]).scale
    if args.upscale not in (None, scale):
        raise InputError(
            f"--upscale is {args.upscale}; {args.upscaler} enlarges {scale} times: leave it out, "
            "or name another network"
        )


def load_upscaler_of(args: argparse.Namespace) -> PretrainedUpscaler | None:
    """Loads the network of --upscaler, if there is one."""
    if args.upscaler is None:
        return None
    return load_upscaler(args.upscaler, Compute(dtype=args.dtype))
