"""Model folders: the format in which models are converted, shared and loaded.

config.json       {"kind", "config", "provenance"}
params/           Orbax; layers one by one (see `layers.py`)
tokenizer.model   and other files that belong to the model
report.json       after a conversion: source and target of every tensor
digests.json      of every array and file, compared when the folder is read (`digests.py`)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from clip_jax import digests
from clip_jax.config_fields import short_repr
from clip_jax.errors import InputError
from clip_jax.input_files import MAX_JSON_BYTES, read_limited
from clip_jax.leading_shapes import Leading
from clip_jax.paths import as_path, is_remote, upload_folder
from clip_jax.text import parse_json

CONFIG, PARAMS, REPORT = "config.json", "params", "report.json"
CONFIG_KEYS = {"kind", "config", "provenance"}


def write_model_folder(
    folder: str | Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    params: Mapping[str, Any] | None,
    files: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a model folder atomically: beside its place, then renamed.

    params: nested dict of arrays with layers one by one, or None for a model without any. A leaf
        may make its array only when it is written (`orbax_io.py`).
    An existing folder that holds anything raises InputError; an interrupted write leaves nothing
    at `folder`.
    """
    with atomic_folder(folder) as temporary:
        arrays = write_params(temporary, params)
        write_metadata(
            temporary, arrays, kind=kind, config=config, files=files, provenance=provenance
        )
    return as_path(folder)


def write_params(folder: Path, params: Mapping[str, Any] | None) -> dict[str, digests.ArrayDigest]:
    """Writes arrays into a new folder; returns their digests, for `write_metadata`."""
    return {} if params is None else _orbax_io().save(folder / PARAMS, params)


def write_metadata(
    folder: Path,
    arrays: Mapping[str, digests.ArrayDigest],
    *,
    kind: str,
    config: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Writes all but the parameters into a new folder. arrays: the parameters' digests."""
    metadata = {"kind": kind, "config": dict(config), "provenance": dict(provenance or {})}
    _write_json(folder / CONFIG, metadata)
    if report is not None:
        _write_json(folder / REPORT, report)
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    digests.write_digests(folder, arrays)


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yields a folder to write into; renames it to `folder` at the end, removes it after an error.

    For a `folder` in a bucket it is a temporary one, uploaded at the end, config.json last.
    Raises InputError if `folder` exists and is not empty.
    """
    folder = check_destination(folder)
    if is_remote(folder):
        with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as local:
            yield Path(local)
            upload_folder(Path(local), folder, last=CONFIG)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's folders are private
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_destination(folder: str | Path) -> Path:
    """Returns the path of a new folder; InputError if something is there already."""
    folder = as_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: already exists; remove it or name another destination")
    return folder


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads {"kind", "config", "provenance"} of a model folder."""
    file = as_path(folder) / CONFIG
    try:
        data = read_limited(file, MAX_JSON_BYTES)
    except OSError as error:
        raise InputError(
            f"{folder}: not a model folder, {CONFIG} cannot be read ({error.strerror}); published "
            "models come from converters.pretrained(NAME)"
        ) from error
    metadata = parse_json(data, str(file))
    if not isinstance(metadata, dict) or set(metadata) != CONFIG_KEYS:
        found = sorted(metadata) if isinstance(metadata, dict) else type(metadata).__name__
        raise InputError(
            f"{file}: holds {found}; expected {sorted(CONFIG_KEYS)}; a foreign checkpoint must be "
            "converted first: python -m converters --help; a published model comes converted: "
            "converters.pretrained(NAME)"
        )
    for key, wanted in (("kind", str), ("config", dict), ("provenance", dict)):
        if not isinstance(metadata[key], wanted):
            noun = "a text" if wanted is str else "an object"
            raise InputError(f"{file}: {key} is {short_repr(metadata[key])}; expected {noun}")
    return metadata


def read_params(
    folder: str | Path,
    leading: Leading | None = None,
    expected: Callable[[], Mapping[str, Any]] | None = None,
    verify: bool | None = None,
) -> dict[str, Any]:
    """Reads the parameters as nested dicts of numpy arrays, layers one by one.

    leading, expected: shapes that the stored ones are compared with before any array is read. The
        few of `leading` come first, so that `expected` never traces a model of sizes that no file
        has.
    verify: whether arrays and files are compared with digests.json, where there is one; None: as
        `digests.should_verify` says. The first that differs raises InputError.
    """
    folder = as_path(folder)
    recorded = read_recorded_digests(folder) if digests.should_verify(verify) else None

    def check(headers: Mapping[str, Any]) -> None:
        if leading is not None:
            _check_leading(folder, headers, leading)
        if expected is not None:
            wanted = digests.flatten(expected())
            _check_shapes(folder, _header_shapes(headers), _header_shapes(wanted))
        if recorded is not None:
            _raise_first(folder, digests.header_faults(recorded, headers))

    params = restore_params(folder, check)
    if recorded is not None:
        _raise_first(folder, digests.array_faults(recorded, digests.digest_arrays(params)))
        _raise_first(folder, digests.file_faults(folder, recorded))
    return params


def restore_params(
    folder: Path,
    check: Callable[[Mapping[str, Any]], None] | None = None,
    name: str = PARAMS,
) -> dict[str, Any]:
    """Reads parameters as `read_params` does, without digests.json.

    check: called with path -> shape and dtype. name: of the folder that Orbax wrote.
    """
    path = folder / name
    if not path.is_dir():
        raise InputError(f"{folder}: has no {name} folder; write or convert the model again")
    with _one_line(path):
        return _orbax_io().restore(path, check)


def read_recorded_digests(folder: Path) -> digests.Digests | None:
    """Reads the digests of a folder; None for folders saved before there were any."""
    recorded, path = digests.read_digests(folder), folder / PARAMS
    if recorded is None and path.is_dir():
        with _one_line(path):
            marked = _orbax_io().has_digests(path)
        if marked:
            raise InputError(
                f"{folder}: has no {digests.FILE_NAME}, with which it was saved; {digests.REMEDY}"
            )
    return recorded


def _check_shapes(
    folder: str | Path,
    found_shapes: Mapping[str, tuple[int, ...]],
    expected_shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises InputError unless both have the same names and shapes."""
    for name in sorted(found_shapes.keys() | expected_shapes.keys()):
        a, b = found_shapes.get(name), expected_shapes.get(name)
        if a != b:
            raise InputError(
                f"{folder}: parameter {name} is {_say(a)}; {CONFIG} asks for {_say(b)}"
            )


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns whatever damaged files raise in Orbax and TensorStore into InputError."""
    try:
        yield
    except (InputError, MemoryError):
        raise  # out of memory is no damage: commands have a status for it
    except Exception as error:  # their errors have no common type
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: parameters cannot be read ({reason})") from error


def _raise_first(folder: Path, faults: Iterator[str]) -> None:
    for fault in faults:
        raise InputError(f"{folder}: {fault}")


def _check_leading(folder: str | Path, headers: Mapping[str, Any], leading: Leading) -> None:
    shapes = _header_shapes(headers)
    for name, sizes in leading.items():
        found, wanted = shapes.get(name), tuple(sizes.values())
        if found is None or found[: len(wanted)] != wanted:
            whole = wanted if found is None else wanted + found[len(wanted) :]
            raise InputError(
                f"{folder}: parameter {name} is {_say(found)}; {CONFIG} asks for {_say(whole)} "
                f"({', '.join(sizes)})"
            )


def _header_shapes(headers: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in headers.items()}


def _say(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _orbax_io() -> ModuleType:
    # Orbax takes a second to import; reading a config does not need it.
    from clip_jax import orbax_io

    return orbax_io
