"""What a training run is: frozen plain data, and how a command line changes it."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from clip_jax.config import PRESETS, ClipConfig, Compute
from clip_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training picture; the defaults leave it as evaluation sees it.

    Rendered, `variants` times a picture where a set is kept in memory, else for each draw:
        scale: smallest and largest side, relative to the model's.
        aspect: largest logarithm of the stretch. rotation: largest angle, in degrees.
        outline: chance of black outlines. lines: chance of thicker or thinner lines. blur: chance.
    For each draw:
        shift: largest shift, in pixels of the model.
        recolour: chance of a change of colour, by these standard deviations: hue (radians),
        saturation and contrast (of the logarithm), brightness (of the full range).
        grey: chance of losing all colour.
    background: grey value 0 to 255 around the picture; colours change in relation to it, so that
        it stays.
    """

    variants: int = 1
    scale: tuple[float, ...] = (1.0, 1.0)
    aspect: float = 0.0
    rotation: float = 0.0
    outline: float = 0.0
    lines: float = 0.0
    blur: float = 0.0
    shift: int = 0
    recolour: float = 0.0
    hue: float = 0.15
    saturation: float = 0.3
    contrast: float = 0.2
    brightness: float = 0.1
    grey: float = 0.0
    background: int = 255

    @property
    def renders(self) -> bool:
        """Whether anything but the plain picture is to be rendered."""
        chances = self.aspect, self.rotation, self.outline, self.lines, self.blur
        return self.scale != (1.0, 1.0) or any(chances)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a run learns from, and how batches are made of it.

    name: an embedded set (`experiments/data/embedded.py`) or the folder of a prepared TFDS set.
    directory: where embedded sets are built. vocabulary: a tokenizer.model to use; "" trains a new
    one on the captions. batch_size: of all devices together. in_memory: decode and render once,
    for sets that fit. threads: that read ahead.
    group_by: a feature, such as "style", in which the examples of a batch agree; each of its
    values gets its share of the batches. "" mixes all examples.
    """

    name: str = "digits_ru"
    directory: str = "runs/data"
    split: str = "train"
    vocabulary: str = ""
    batch_size: int = 128
    in_memory: bool = True
    threads: int = 1
    group_by: str = ""
    augment: AugmentConfig = AugmentConfig()


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay to `final` times the peak rate.

    clip_norm: largest global gradient norm; 0 turns clipping off.
    """

    learning_rate: float = 5e-4
    warmup_steps: int = 2000
    final: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.2
    clip_norm: float = 0.0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; one of them may be -1: whatever is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole run. `every` counts are in steps; 0 turns the thing off.

    duplicates: whether equal captions in a batch are one another's "negatives" (as in CLIP and
        ruCLIP) or "positives".
    evaluators: names in `experiments/evaluation/evaluators.py`.
    """

    model: ClipConfig = PRESETS["tiny"]
    compute: Compute = Compute()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    mesh: MeshConfig = MeshConfig()
    objective: str = "clip"
    duplicates: str = "negatives"
    steps: int = 1000
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    evaluate_every: int = 0
    evaluators: tuple[str, ...] = ()

    def to_config_dict(self) -> config_dict.ConfigDict:
        """What an experiment file's `get_config` returns, so that flags can change it."""
        return config_dict.ConfigDict(dataclasses.asdict(self))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Unknown, missing and ill-typed values raise InputError."""
        return check(_build(cls, data, ""))


def check(config: TrainConfig) -> TrainConfig:
    """The same config; values that no run could use raise InputError."""

    def expect(good: bool, key: str, value: Any, wish: str) -> None:
        if not good:
            raise InputError(f"config.{key} is {value!r}; expected {wish}")

    optim, data, augment = config.optim, config.data, config.data.augment
    expect(config.steps > 0, "steps", config.steps, "a positive number")
    expect(config.log_every > 0, "log_every", config.log_every, "a positive number")
    expect(config.keep_checkpoints > 0, "keep_checkpoints", config.keep_checkpoints, "at least 1")
    expect(config.checkpoint_every >= 0, "checkpoint_every", config.checkpoint_every, "0 or more")
    expect(config.evaluate_every >= 0, "evaluate_every", config.evaluate_every, "0 or more")
    expect(data.batch_size > 1, "data.batch_size", data.batch_size, "at least 2, to contrast")
    expect(data.threads >= 0, "data.threads", data.threads, "0 or more")
    expect(optim.learning_rate > 0, "optim.learning_rate", optim.learning_rate, "above 0")
    expect(optim.warmup_steps >= 0, "optim.warmup_steps", optim.warmup_steps, "0 or more")
    expect(0 <= optim.final <= 1, "optim.final", optim.final, "0 to 1")
    expect(optim.clip_norm >= 0, "optim.clip_norm", optim.clip_norm, "0 (off) or above")
    expect(
        config.duplicates in ("negatives", "positives"),
        "duplicates", config.duplicates, "'negatives' or 'positives'",
    )  # fmt: skip
    expect(
        len(augment.scale) == 2 and 0 < augment.scale[0] <= augment.scale[1],
        "data.augment.scale", augment.scale, "two positive numbers, the smaller first",
    )  # fmt: skip
    for chance in ("outline", "lines", "blur", "recolour", "grey"):
        value = getattr(augment, chance)
        expect(0 <= value <= 1, f"data.augment.{chance}", value, "a chance, 0 to 1")
    expect(augment.variants > 0, "data.augment.variants", augment.variants, "at least 1")
    expect(augment.shift >= 0, "data.augment.shift", augment.shift, "0 or more pixels")
    expect(
        0 <= augment.background <= 255,
        "data.augment.background", augment.background, "0 to 255",
    )  # fmt: skip
    return config


def parse_command_line(argv: Sequence[str]) -> tuple[TrainConfig, Path]:
    """`--config=FILE --workdir=DIR [--config.key=value ...]` to a config and a folder.

    Anything unknown or ill-typed raises InputError before anything starts.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", help_string="An experiment file.", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    try:
        left = values([sys.argv[0], *argv])
        chosen = None if config.value is None else config.value.to_dict()
    except OSError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--config: the experiment file cannot be read ({reason})") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_explain(argv, str(error))) from error
    if left[1:]:
        raise InputError(f"unknown argument {left[1]!r}; overrides are --config.key=value")
    if chosen is None or values.workdir is None:
        raise InputError("--config=FILE and --workdir=DIR are both needed")
    return TrainConfig.from_dict(chosen), Path(values.workdir)


def describe_keys() -> str:
    """Every key that `--config.key=value` takes, with its default, a line each."""
    flat = flatten(TrainConfig().to_dict())
    return "\n".join(f"  --config.{key}={value!r}" for key, value in flat.items())


def _explain(argv: Sequence[str], message: str) -> str:
    """One line for what went wrong, with the nearest known key where one is misspelt."""
    known = list(flatten(TrainConfig().to_dict()))
    for argument in argv:
        match = re.match(r"--config\.([\w.]+)", argument)
        if match and match[1] not in known:
            near = difflib.get_close_matches(match[1], known, n=1, cutoff=0.5)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            return f"unknown key config.{match[1]}{hint}"
    return " ".join(message.split())


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {prefix + key: value}
        )
    return flat


def _build(cls: type, data: Mapping[str, Any], prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        near = difflib.get_close_matches(unknown[0], fields, n=1)
        hint = f"; did you mean {prefix}{near[0]}?" if near else ""
        raise InputError(f"unknown key config.{prefix}{unknown[0]}{hint}")
    built = {}
    for name, value in data.items():
        default = fields[name].default
        if isinstance(default, ClipConfig):
            built[name] = ClipConfig.from_dict(value)
        elif dataclasses.is_dataclass(default) and isinstance(value, Mapping):
            built[name] = _build(type(default), value, f"{prefix}{name}.")
        else:
            built[name] = _as_type_of(default, value, f"{prefix}{name}")
    return cls(**built)


def _as_type_of(default: Any, value: Any, key: str) -> Any:
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise InputError(
            f"config.{key} is {value!r} ({type(value).__name__}); expected {type(default).__name__}"
        )
    return value
