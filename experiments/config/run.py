"""A training run: frozen plain data."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from flax.traverse_util import unflatten_dict
from ml_collections import config_dict
from msgspec import Meta

from clip_jax.config import Compute
from clip_jax.config_fields import FUNCTIONS, INT64, Size, check_fields, plain_dict, short_repr
from clip_jax.errors import InputError
from clip_jax.paths import check_scheme, local_path
from experiments.config.data import DataConfig, check_data, expect
from experiments.config.extensions import NO_EXTENSIONS, Extensions, join_names
from experiments.config.objective import DEFAULTS, Model, Settings
from experiments.config.optimizer import OptimConfig, check_optim
from experiments.config.renamed import RENAMED, current_names
from rudolph_jax.config import RudolphConfig

PARALLEL = ("jit", "pmap")
BEST = ("highest", "lowest")
FINAL_MODELS = ("last", "best")


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """folder: a model folder, converted or trained; "" begins with fresh parameters.

    reinitialize: patterns of the parameters that keep their fresh values, such as
    "text/(token_embedding|layers/.*)". In a name a layer has its number.
    wise_ft: weight of the folder's parameters in the model that is evaluated and saved, the trained
    ones having the rest (WiSE-FT, Wortsman et al. 2022); 0: the trained ones alone. Training itself
    does not see it.
    """

    folder: str = ""
    reinitialize: tuple[str, ...] = ()
    wise_ft: Annotated[float, Meta(ge=0, lt=1)] = 0.0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; one of them may be -1: whatever is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole run. `every` counts are in steps; 0 turns the thing off.

    objective: what is trained; `model` and `settings` are of its types (`DEFAULTS`).
    parallel: "jit" over the mesh, or "pmap": the same step, each device with the whole model.
    grad_accum_steps: micro-batches that a batch is taken in; the gradient is the whole batch's.
    fp8_products: rounds what linear maps of ruCLIP and RUDOLPH multiply in a step to 8-bit floats,
        which GPUs from compute capability 8.9 on multiply twice as fast (`clip_jax/fp8.py`).
    evaluators: "TASK:SPLIT" or "TASK:SET", see
        `experiments/evaluation/during_training/evaluators.py`.
    evaluation_sets: where such sets lie; "": where `python -m experiments.evaluate` looks.
    best_metric: of an evaluator, "retrieval:validation/top1" say; the checkpoint with its best
        value, the "highest" or the "lowest" (best_mode), is retained besides the newest. "": none.
    early_stop: ends the run after so many evaluations in a row without a better `best_metric`.
    final_model: which parameters become the model folder, of the "last" step or of the "best" by
        `best_metric`.
    report_to: where metrics are shown besides metrics.jsonl: "tensorboard", "wandb", "mlflow".
    evaluation_images: how many held-out captions RUDOLPH draws at each evaluation, by a "losses"
        evaluator's split; ruCLIP's "zero-shot" evaluators have a confusion matrix then. 0: none.
        See `experiments/evaluation/during_training/images.py` for what they cost.
    watchdog_seconds: how long processes wait for one that does not begin a step; 0: for ever.
    extensions: own functions that the config names; they are not saved with it.
    """

    objective: str = "clip"
    model: Model = DEFAULTS["clip"][0]
    settings: Settings = DEFAULTS["clip"][1]
    compute: Compute = Compute()
    init: InitConfig = InitConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    mesh: MeshConfig = MeshConfig()
    parallel: str = "jit"
    grad_accum_steps: Size = 1
    fp8_products: bool = False
    steps: int = 1000
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    evaluate_every: int = 0
    evaluators: tuple[str, ...] = ()
    evaluation_sets: str = ""
    best_metric: str = ""
    best_mode: str = "highest"
    early_stop: Annotated[int, Meta(ge=0)] = 0
    final_model: str = "last"
    report_to: tuple[str, ...] = ("tensorboard",)
    evaluation_images: Annotated[int, Meta(ge=0, le=256)] = 8
    watchdog_seconds: float = 0.0
    extensions: Extensions = dataclasses.field(
        default=Extensions(), compare=False, metadata=FUNCTIONS
    )

    def to_config_dict(self) -> config_dict.ConfigDict:
        """Returns the ConfigDict of an experiment file's `get_config`, which flags can change."""
        return config_dict.ConfigDict(_with_placeholders(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        return plain_dict(self)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], extensions: Extensions = NO_EXTENSIONS
    ) -> TrainConfig:
        """The inverse of `to_dict`. Unknown, missing and ill-typed values raise InputError."""
        default = default_config(data.get("objective", "clip"), extensions)
        data = {**data}
        if isinstance(default.model, RudolphConfig) and isinstance(data.get("model"), Mapping):
            own = extensions.find_mask(data["model"].get("mask_order", ""))
            data["model"] = RudolphConfig.from_dict(data["model"], own)
        return check(_build(default, data, ""))

    @classmethod
    def from_saved(
        cls, data: Mapping[str, Any], extensions: Extensions = NO_EXTENSIONS
    ) -> TrainConfig:
        """Returns the config that a checkpoint was saved with, by this or an earlier version."""
        named = unflatten_dict(current_names(flatten(data)), sep=".")
        return cls.from_dict(named, extensions)


def default_config(objective: str, extensions: Extensions = NO_EXTENSIONS) -> TrainConfig:
    """Return the defaults of an objective; an unknown one raises InputError."""
    own = {name: (own.model, own.settings) for name, own in extensions.objectives.items()}
    known = join_names(DEFAULTS, own, "objective")
    if not isinstance(objective, str) or objective not in known:
        raise InputError(
            f"config.objective is {short_repr(objective)}; expected one of {', '.join(known)}"
        )
    model, settings = known[objective]
    return TrainConfig(objective, model, settings, extensions=extensions)


def check(config: TrainConfig) -> TrainConfig:
    """The same config; values that no run could use raise InputError."""
    default = default_config(config.objective, config.extensions)
    for name in ("model", "settings"):
        wanted, found = type(getattr(default, name)), type(getattr(config, name))
        if found is not wanted:
            raise InputError(
                f"config.{name} is a {found.__name__}; objective {config.objective!r} takes a "
                f"{wanted.__name__}"
            )
    check_fields(config, "config.")
    if hasattr(config.settings, "check"):
        config.settings.check()
    _check_paths(config)
    check_data(config.data)
    if config.objective == "clip":
        size = config.data.batch_size
        expect(size > 1, "data.batch_size", size, "at least 2, to contrast")
    expect(config.steps > 0, "steps", config.steps, "a positive number")
    expect(config.log_every > 0, "log_every", config.log_every, "a positive number")
    expect(config.keep_checkpoints > 0, "keep_checkpoints", config.keep_checkpoints, "at least 1")
    expect(config.checkpoint_every >= 0, "checkpoint_every", config.checkpoint_every, "0 or more")
    expect(config.evaluate_every >= 0, "evaluate_every", config.evaluate_every, "0 or more")
    expect(config.parallel in PARALLEL, "parallel", config.parallel, " or ".join(PARALLEL))
    parts = config.grad_accum_steps
    expect(parts > 0, "grad_accum_steps", parts, "a positive number")
    able = config.objective != "vqgan" or not config.fp8_products
    expect(able, "fp8_products", True, "False: the image tokenizer has convolutions alone")
    check_optim(config.optim, config.extensions)
    if config.objective == "vqgan" and config.settings.entropy_weight:
        # Entropy of a batch's mean distribution is not the mean of its parts' entropies.
        whole = "{} with settings.entropy_weight, which needs the whole batch at once"
        expect(config.parallel == "jit", "parallel", config.parallel, whole.format("jit"))
        expect(parts == 1, "grad_accum_steps", parts, whole.format("1"))
    begins = bool(config.init.folder) or not config.init.wise_ft
    expect(begins, "init.folder", "", "a model folder, which config.init.wise_ft averages with")
    _check_best(config)
    for name in config.report_to:
        expect(name in TRACKERS, "report_to", name, ", ".join(TRACKERS))
    waits = config.watchdog_seconds
    expect(waits >= 0, "watchdog_seconds", waits, "seconds, or 0 for no watchdog")
    return config


def _check_paths(config: TrainConfig) -> None:
    """Raises InputError for an address that no run can read, in any field."""
    for key, value in flatten(config.to_dict()).items():
        for text in value if isinstance(value, tuple | list) else (value,):
            if isinstance(text, str):
                try:
                    check_scheme(text)
                except InputError as error:
                    raise InputError(f"config.{key}: {error}") from error
    local_path(config.data.directory, "config.data.directory, where sets are built,")


def _check_best(config: TrainConfig) -> None:
    best, every = config.best_mode, (config.checkpoint_every, config.evaluate_every)
    expect(best in BEST, "best_mode", best, " or ".join(BEST))
    expect(config.final_model in FINAL_MODELS, "final_model", config.final_model, "last or best")
    if not config.best_metric:
        wish = "a metric of an evaluator, which config.{} needs"
        expect(not config.early_stop, "best_metric", "", wish.format("early_stop"))
        expect(config.final_model == "last", "best_metric", "", wish.format("final_model=best"))
        return
    evaluator = config.best_metric.partition("/")[0]
    known = ", ".join(f"{name}/..." for name in config.evaluators) or "config.evaluators, first"
    expect(evaluator in config.evaluators, "best_metric", config.best_metric, known)
    # Only a step that is both evaluated and saved can be the best one.
    meet = all(every) and not max(every) % min(every)
    names = "(checkpoint_every, evaluate_every)"
    expect(meet, names, every, "two numbers of which one divides the other, for best_metric")


def _with_placeholders(data: dict[str, Any]) -> dict[str, Any]:
    """`data`, where a colour that is None can be set from the command line: it has a type."""
    return {
        key: _with_placeholders(value) if isinstance(value, dict)
        else config_dict.placeholder(tuple) if key == "background" and value is None
        else value
        for key, value in data.items()
    }  # fmt: skip


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


def _build(default: Any, data: Mapping[str, Any], prefix: str) -> Any:
    """A dataclass of the type of `default` from plain data."""
    fields = [f.name for f in dataclasses.fields(default) if not f.metadata.get("functions")]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        if (old := prefix + unknown[0]) in RENAMED:
            raise InputError(f"config.{old} is called config.{RENAMED[old]} now")
        near = difflib.get_close_matches(unknown[0], fields, n=1)
        hint = f"; did you mean {prefix}{near[0]}?" if near else ""
        raise InputError(f"unknown key config.{prefix}{unknown[0]}{hint}")
    built = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
    for name, value in data.items():
        usual = built[name]
        if isinstance(usual, Model) and isinstance(value, Model):
            built[name] = value
        elif isinstance(usual, Model) and isinstance(value, Mapping):  # checks its own keys
            built[name] = type(usual).from_dict(value)
        elif dataclasses.is_dataclass(usual) and isinstance(value, Mapping):
            built[name] = _build(usual, value, f"{prefix}{name}.")
        else:
            built[name] = _as_type_of(usual, value, f"{prefix}{name}")
    return type(default)(**built)


def _as_type_of(default: Any, value: Any, key: str) -> Any:
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(default, float) and type(value) is int and abs(value) < INT64:
        return float(value)
    if type(value) is not type(default):
        raise InputError(
            f"config.{key} is {short_repr(value)} ({type(value).__name__}); expected "
            f"{type(default).__name__}"
        )
    return value
