"""Trains a small network that enlarges, and draws docs/upscaling.md's image with it:

    python -m docs.tools.upscaling_images docs/pictures --model=runs/upscaler

The network is Real-ESRGAN's in small (16 features, 2 blocks), trained from scratch by its absolute
error alone on drawings of OpenMoji's font, reduced by 4: minutes on two cores. Where the model
folder is there already, nothing is trained. Prints the errors of held-out drawings beside those of
bicubic interpolation, and writes upscaling.png. Needs the extra `demo`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image, ImageDraw, ImageFont

from clip_jax.atomic_file import replace_file
from clip_jax.cli import Parser, positive_int
from clip_jax.model_folder import CONFIG
from experiments.cli.exit_status import exit_status
from experiments.data.digits_ru import digits
from experiments.data.emoji_images import all_emoji, draw_openmoji
from experiments.training.phases import with_progress
from rudolph_jax.upscaler.config import UpscalerConfig
from rudolph_jax.upscaler.pretrained import PretrainedUpscaler, load_upscaler
from rudolph_jax.upscaler.rrdb import RrdbNet, init_params

NETWORK = UpscalerConfig(scale=4, features=16, blocks=2, growth=8)
SCALE, PATCH, BATCH = NETWORK.scale, 64, 8  # PATCH: pixels of the enlarged side
DRAWINGS, PATCHES_EACH = 400, 10
SIDES = 192, 1024  # of the drawings that patches are cut from
FLAT = 12.0  # standard deviation of a patch's values below which it shows too little
SHOWN, SHOWN_SIDE, CROP = "🦔", 256, (96, 88, 176, 168)
DIGIT = 7  # which of the digits
PANEL, MARGIN = 320, 24  # pixels


def drawing(characters: str, side: int) -> Image.Image:
    """An emoji on white."""
    white = Image.new("RGBA", (side, side), "white")
    white.alpha_composite(draw_openmoji(characters, side))
    return white.convert("RGB")


def reduced(image: Image.Image) -> Image.Image:
    return image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.BICUBIC)


def training_patches(names: Sequence[str], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Patches uint8[N, PATCH, PATCH, 3], and the same reduced."""
    large, small = [], []
    for _ in with_progress(range(DRAWINGS), "drawing"):
        side = int(rng.integers(*SIDES))
        image = drawing(names[rng.integers(len(names))], side)
        for _ in range(PATCHES_EACH):
            x, y = rng.integers(0, side - PATCH, 2)
            patch = image.crop((x, y, x + PATCH, y + PATCH))
            if np.asarray(patch).std() >= FLAT:
                large.append(np.asarray(patch))
                small.append(np.asarray(reduced(patch)))
    return np.stack(large), np.stack(small)


def trained(names: Sequence[str], steps: int, seed: int) -> PretrainedUpscaler:
    rng = np.random.default_rng(seed)
    large, small = training_patches(names, rng)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    network = RrdbNet(NETWORK)

    @jax.jit
    def step(params, state, images, wanted):
        def loss(params):
            enlarged = network.apply({"params": params}, images.astype(jnp.float32) / 255)
            return jnp.abs(enlarged - wanted.astype(jnp.float32) / 255).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    params = init_params(NETWORK, jax.random.key(seed))
    state = optimizer.init(params)
    for number in with_progress(range(steps), "training"):
        rows = rng.integers(len(large), size=BATCH)
        params, state, value = step(params, state, small[rows], large[rows])
        if number % 100 == 99:
            print(f"step {number + 1}: mean absolute error {float(value):.4f}", flush=True)
    return PretrainedUpscaler(NETWORK, params)


def peak_ratio(found: Image.Image, right: Image.Image) -> float:
    """Peak signal-to-noise ratio in decibels."""
    error = np.asarray(found, np.float64) - np.asarray(right, np.float64)
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def bicubic(image: Image.Image) -> Image.Image:
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC)


def sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> bytes:
    """Titled images, magnified to panels without interpolation, as a PNG file."""
    step, font = PANEL + MARGIN, ImageFont.load_default(16)
    whole = Image.new("RGB", (step * len(rows[0]) - MARGIN, step * len(rows)), "white")
    pen = ImageDraw.Draw(whole)
    for y, row in enumerate(rows):
        for x, (title, image) in enumerate(row):
            pen.text((x * step, y * step + 2), title, "black", font)
            panel = image.resize((PANEL, PANEL), Image.Resampling.NEAREST)
            whole.paste(panel, (x * step, y * step + MARGIN))
    buffer = io.BytesIO()
    whole.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m docs.tools.upscaling_images", description=__doc__)
    parser.add_argument("out", type=Path, help="a folder for the image")
    parser.add_argument("--model", type=Path, required=True, help="folder of the network")
    parser.add_argument("--steps", type=positive_int, default=1500, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and patches")
    args = parser.parse_args(argv)
    if there := (args.model / CONFIG).exists():
        upscaler = load_upscaler(args.model)
    names = [emoji.characters for emoji in all_emoji() if emoji.characters != SHOWN]
    held_out, others = names[::40], [each for i, each in enumerate(names) if i % 40]
    if not there:
        upscaler = trained(others, args.steps, args.seed)
        upscaler.save(args.model, source="docs.tools.upscaling_images")
    right = [drawing(each, SHOWN_SIDE) for each in held_out]
    small = [reduced(image) for image in right]
    for way, found in (
        ("bicubic", [bicubic(image) for image in small]), ("network", upscaler.upscale(small))
    ):  # fmt: skip
        mean = np.mean([peak_ratio(*pair) for pair in zip(found, right, strict=True)])
        print(f"{way}: {mean:.2f} dB, {len(right)} held-out drawings, 64 to 256 pixels")
    shown = drawing(SHOWN, SHOWN_SIDE)
    digit = Image.fromarray(digits()[0][DIGIT])
    rows = []
    for title, image, box in (
        (f"part of {SHOWN_SIDE}x{SHOWN_SIDE} pixels", shown, CROP),
        ("8x8 pixels", digit, (0, 0, 8, 8)),
    ):  # fmt: skip
        large = tuple(SCALE * edge for edge in box)
        (enlarged,) = upscaler.upscale([image])
        rows.append([
            (title, image.crop(box)),
            ("bicubic, 4 times", bicubic(image).crop(large)),
            ("small network, 4 times", enlarged.crop(large)),
        ])  # fmt: skip
    replace_file(args.out / "upscaling.png", sheet(rows))
    print(args.out / "upscaling.png")


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


if __name__ == "__main__":
    sys.exit(main())
