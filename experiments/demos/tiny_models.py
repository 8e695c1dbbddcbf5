"""The quickstart's models for a notebook, or tiny ones in their place.

    models = quickstart_models()
    clip = clip_jax.load(models.ruclip)

The tiny ones have the quickstart's form at a fraction of its size. A handful of steps on the digits
is all that they are trained for: every call works on them, and what they say and draw is noise.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clip_jax import ClipConfig, ImageConfig, TextConfig, VisionConfig
from experiments.config.run import TrainConfig
from experiments.configs import digits, digits_rudolph, digits_vqgan
from experiments.train import MODEL, train

STEPS = 5


@dataclasses.dataclass(frozen=True)
class Models:
    """Model folders. trained: whether they are the quickstart's, and not the tiny ones."""

    ruclip: Path
    vqgan: Path
    rudolph: Path
    trained: bool


def quickstart_models(
    folder: str | Path = "runs/quickstart", tiny: str | Path = "runs/tiny"
) -> Models:
    """The models of `make quickstart`, else tiny ones, made in `tiny` where they are not there yet.

    folder: where the quickstart left its models, seen from here or from any folder above.
    """
    for place in (Path(), *Path.cwd().parents):
        if _all_there(place / folder):
            return _models(place / folder, trained=True)
    if not _all_there(Path(tiny)):
        print(f"no models of the quickstart in {folder}: making tiny ones in {tiny}, which are")
        print(f"trained for {STEPS} steps and know next to nothing; this takes about a minute")
        make_tiny_models(tiny)
    return _models(Path(tiny), trained=False)


def make_tiny_models(workdir: str | Path, steps: int = STEPS) -> None:
    """Trains the three on a few handwritten digits; a folder MODEL/model for each."""
    workdir = Path(workdir)
    for name, config in tiny_configs(steps).items():
        if name == "rudolph":
            vqgan = str(workdir / "vqgan" / MODEL)
            settings = dataclasses.replace(config.settings, vqgan=vqgan)
            config = dataclasses.replace(config, settings=settings)
        train(config, workdir / name)


def tiny_configs(steps: int = STEPS) -> dict[str, TrainConfig]:
    """The quickstart's recipes on the digits, with small models and small batches."""
    ruclip = ClipConfig(
        VisionConfig(image_size=16, patch_size=8, width=64, layers=1, heads=1, mlp_width=256),
        TextConfig(vocab_size=256, context_length=16, width=64, layers=1, heads=1, mlp_width=256),
        embed_dim=16,
        image=ImageConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )
    vqgan, rudolph = digits_vqgan.train_config(), digits_rudolph.train_config()
    return {
        "ruclip": _small(digits.train_config(), ruclip, steps),
        "vqgan": _small(
            vqgan, dataclasses.replace(vqgan.model, channels=8, norm_groups=4), steps
        ),
        "rudolph": _small(
            rudolph, dataclasses.replace(rudolph.model, width=16, heads=2, layers=2), steps
        ),
    }


def _small(recipe: TrainConfig, model: object, steps: int) -> TrainConfig:
    augment = dataclasses.replace(recipe.data.augment, variants=1)
    data = dataclasses.replace(recipe.data, batch_size=16, augment=augment)
    return dataclasses.replace(
        recipe, model=model, data=data, steps=steps, evaluators=(), evaluate_every=0,
        checkpoint_every=0, log_every=1,
    )  # fmt: skip


def _models(folder: Path, trained: bool) -> Models:
    return Models(*(folder / name / MODEL for name in ("ruclip", "vqgan", "rudolph")), trained)


def _all_there(folder: Path) -> bool:
    models = _models(folder, trained=True)
    return all(path.is_dir() for path in (models.ruclip, models.vqgan, models.rudolph))
