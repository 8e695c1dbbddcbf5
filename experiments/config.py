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
    """Random changes of a training picture, all drawn by example and step alone.

    scales: sides of the picture relative to the model's, rendered once; each draw takes one and
        cuts or pads it to size at a random place. (1.0,) leaves pictures as evaluation sees them.
    background: grey value that pads, 0 to 255.
    flip: chance of a mirror image.
    contrast, brightness: largest relative change, and largest shift in units of full range.
    colour: weight of a random mixing of channels; 0 keeps them.
    """

    scales: tuple[float, ...] = (1.0,)
    background: int = 255
    flip: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    colour: float = 0.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """name: an embedded set (`experiments/data/embedded.py`) or the folder of a prepared TFDS set.
    directory: where embedded sets are built. vocabulary: a tokenizer.model to use; "" trains a new
    one on the captions. batch_size: of all devices together. in_memory: decode and resize once,
    for sets that fit. threads: that read ahead.
    """

    name: str = "digits_ru"
    directory: str = "runs/data"
    split: str = "train"
    vocabulary: str = ""
    batch_size: int = 128
    in_memory: bool = True
    threads: int = 1
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
        bool(augment.scales) and min(augment.scales, default=0) > 0,
        "data.augment.scales", augment.scales, "one or more positive numbers",
    )  # fmt: skip
    expect(0 <= augment.flip <= 1, "data.augment.flip", augment.flip, "a chance, 0 to 1")
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


def _explain(argv: Sequence[str], message: str) -> str:
    """One line for what went wrong, with the nearest known key where one is misspelt."""
    known = _keys(TrainConfig().to_dict())
    for argument in argv:
        match = re.match(r"--config\.([\w.]+)", argument)
        if match and match[1] not in known:
            near = difflib.get_close_matches(match[1], known, n=1, cutoff=0.5)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            return f"unknown key config.{match[1]}{hint}"
    return " ".join(message.split())


def _keys(data: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in data.items():
        names.append(prefix + key)
        if isinstance(value, Mapping):
            names += _keys(value, f"{prefix}{key}.")
    return names


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
