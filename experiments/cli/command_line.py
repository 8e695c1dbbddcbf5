"""Parses the command line of a training run: its config file, overrides and folder."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from clip_jax.errors import InputError
from clip_jax.paths import as_path
from experiments.config.extensions import NO_EXTENSIONS, Extensions
from experiments.config.objective import DEFAULTS
from experiments.config.renamed import RENAMED
from experiments.config.run import TrainConfig, default_config, flatten

CONFIGS = Path(__file__).parent.parent / "configs"
SHIPPED = "experiments/configs"
BY_OBJECTIVE = ("model.", "settings.")
# By the type of a key's default: what its value is in a sentence.
KINDS = {
    bool: "true or false", int: "an integer", float: "a number", str: "a text",
    tuple: "a tuple, such as \"('a', 'b')\" or \"()\"",
}  # fmt: skip


def parse_command_line(argv: Sequence[str]) -> tuple[TrainConfig, Path]:
    """`--config=FILE --workdir=DIR [--config.key=value ...]` to a config and a folder.

    Anything unknown or ill-typed raises InputError before anything starts.
    """
    argv = [_with_file(argument) for argument in argv]
    _check_file(argv)
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", help_string="An experiment file.", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_boolean("debug", False, "Trace an error.", flag_values=values)
    try:
        left = values([sys.argv[0], *argv])
        chosen = None if config.value is None else _without_tuples_of_none(config.value.to_dict())
    except OSError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--config: the experiment file cannot be read ({reason})") from error
    except SyntaxError as error:
        raise InputError(f"--config: {error.filename}, line {error.lineno}: {error.msg}") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_explain(argv, str(error))) from error
    if left[1:]:
        raise InputError(f"unknown argument {left[1]!r}; overrides are --config.key=value")
    if chosen is None or values.workdir is None:
        raise InputError("--config=FILE and --workdir=DIR are both needed")
    file = next(a for a in reversed(argv) if a.startswith("--config=")).partition("=")[2]
    return TrainConfig.from_dict(chosen, load_extensions(file)), as_path(values.workdir)


def load_experiment(file: str | Path) -> ModuleType:
    """Runs an experiment file and returns it as a module."""
    file = Path(str(experiment_file(file)).partition(".py:")[0])
    file = file if file.suffix else file.with_suffix(".py")
    if not file.is_file():
        raise InputError(f"--config: {file} is no experiment file")
    spec = importlib.util.spec_from_file_location("experiment_file", file)
    if spec is None:
        raise InputError(f"--config: {file} is no experiment file; expected a name ending in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"--config: {error.filename}, line {error.lineno}: {error.msg}") from error
    return module


def load_extensions(file: str | Path) -> Extensions:
    """Returns what an experiment file's `get_extensions` does; nothing without such a function."""
    module = load_experiment(file)
    if not hasattr(module, "get_extensions"):
        return NO_EXTENSIONS
    extensions = module.get_extensions()
    if not isinstance(extensions, Extensions):
        raise InputError(
            f"--config: {file}: get_extensions() returns {type(extensions).__name__}; expected "
            "experiments.config.extensions.Extensions"
        )
    return extensions


def _without_tuples_of_none(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with None for (None,), as ml_collections parses `=None` for a field of a tuple."""
    return {
        key: _without_tuples_of_none(value) if isinstance(value, dict)
        else None if value == (None,)
        else value
        for key, value in data.items()
    }  # fmt: skip


def experiment_file(path: str | Path) -> Path:
    """Returns the path, or the shipped file for an experiments/configs/NAME that is missing.

    An argument for the file's `get_config`, FILE:ARGUMENT, stays.
    """
    name, ending, argument = str(path).partition(".py:")
    if ending:
        return Path(f"{experiment_file(f'{name}.py')}:{argument}")
    path = Path(path)
    shipped = CONFIGS / path.name
    if path.parent == Path(SHIPPED) and not path.exists() and shipped.is_file():
        return shipped
    return path


def _with_file(argument: str) -> str:
    flag, _, value = argument.partition("=")
    return f"{flag}={experiment_file(value)}" if flag == "--config" and value else argument


def _check_file(argv: Sequence[str]) -> None:
    """Raises InputError for an experiment file that is not there."""
    for flag, following in zip(argv, [*argv[1:], ""], strict=False):
        name, sign, value = flag.partition("=")
        file, ending, _ = (value if sign else following).partition(".py:")  # FILE:ARGUMENT
        path = Path(file + ending.removesuffix(":"))
        if name != "--config" or path.is_file():
            continue
        reason = "is a folder" if path.is_dir() else "there is no such file"
        shipped = {file.name: f"{SHIPPED}/{file.name}" for file in sorted(CONFIGS.glob("[!_]*.py"))}
        near = difflib.get_close_matches(f"{path.stem}.py", shipped, n=1)
        hint = f"did you mean {shipped[near[0]]}?" if near else f"{SHIPPED} holds the shipped ones"
        raise InputError(f"--config: {path} cannot be read: {reason}; {hint}")


def take_distributed(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The value of `--distributed=...`, "none" where it is not given, and all other arguments."""
    flag = "--distributed="
    given = [argument for argument in argv if argument.startswith(flag)]
    how = given[-1].removeprefix(flag) if given else "none"
    return how, [argument for argument in argv if argument not in given]


def describe_keys() -> str:
    """List every key that `--config.key=value` takes, with its default, a line each."""
    flat = {name: flatten(default_config(name).to_dict()) for name in DEFAULTS}
    parts = [
        _listed("every objective", {
            key: value for key, value in flat["clip"].items() if not key.startswith(BY_OBJECTIVE)
        })
    ]  # fmt: skip
    for name, keys in flat.items():
        own = {key: value for key, value in keys.items() if key.startswith(BY_OBJECTIVE)}
        parts.append(_listed(f"objective {name!r}", own))
    return "\n".join(parts)


def _listed(title: str, keys: dict[str, object]) -> str:
    return "\n".join([f"{title}:", *(f"  --config.{key}={v!r}" for key, v in keys.items())])


def _explain(argv: Sequence[str], message: str) -> str:
    """Explain an error in one line, with the nearest known key where one is misspelt."""
    objectives: dict[str, list[str]] = {}
    for name in DEFAULTS:
        for key in flatten(default_config(name).to_dict()):
            objectives.setdefault(key, []).append(name)
    given = [match[1] for a in argv if (match := re.match(r"--config\.([\w.]+)", a))]
    for key in given:
        if key in RENAMED:
            return f"config.{key} is called config.{RENAMED[key]} now"
        if key not in objectives:
            near = difflib.get_close_matches(key, objectives, n=1, cutoff=0.5)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            return f"unknown key config.{key}{hint}"
    for key in given:
        # All that is said of a key that the experiment file lacks is the end of its name.
        if message.strip("'\"") == key.rpartition(".")[2]:
            owners = " and ".join(objectives[key])
            return f"config.{key} is a key of objective {owners}; the experiment file has another"
    if match := re.fullmatch(r"Missing value for flag (--[\w.]+)", message.strip()):
        return f"{match[1]} has no value; expected {match[1]}=VALUE"
    if match := re.fullmatch(r"Unknown command line flag '([\w.]+)'.*", message.strip(), re.DOTALL):
        keys = {f"config.{key}" for key in objectives}
        near = difflib.get_close_matches(match[1], [*keys, "config", "workdir"], n=1)
        near = [f"config.{match[1]}"] if match[1] in objectives else near
        hint = f"did you mean --{near[0]}?" if near else "overrides are --config.KEY=VALUE"
        return f"unknown option --{match[1]}; {hint}"
    for argument in argv:
        if message.startswith(f"flag {argument}:"):
            flag, _, value = argument.partition("=")
            if flag == "--config":  # what the file itself raised
                return " ".join(message.removeprefix(f"flag {argument}:").split())
            owners = objectives.get(flag.removeprefix("--config."), ())
            return f"{flag.removeprefix('--')} is {value!r}; expected {_expected(flag, owners)}"
    return " ".join(message.split())


def _expected(flag: str, objectives: Sequence[str]) -> str:
    """Returns what the values of a flag are; the flags that are no keys are true or false."""
    for name in objectives:
        default = flatten(default_config(name).to_dict())[flag.removeprefix("--config.")]
        if type(default) in KINDS:
            return KINDS[type(default)]
    return KINDS[bool] if not objectives else "another kind of value"
