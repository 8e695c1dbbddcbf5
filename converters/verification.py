"""Compare a model folder, or a training run's checkpoints, with the digests recorded at saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clip_jax import digests, model_folder, tree_checksums
from clip_jax.errors import InputError
from clip_jax.model_folder import PARAMS
from clip_jax.paths import as_path
from converters.files import read_json

# A run's folders, as `experiments` names them.
CHECKPOINTS, MODEL = "checkpoints", "model"
NO_DIGESTS = "carries no digests, as saved by an earlier version"


@dataclass(frozen=True)
class VerificationResult:
    """Hold the result. faults: a line each. without_digests: folders without recorded digests."""

    arrays: int = 0
    files: int = 0
    faults: tuple[str, ...] = ()
    without_digests: tuple[str, ...] = field(default=())

    def __add__(self, other: VerificationResult) -> VerificationResult:
        return VerificationResult(
            self.arrays + other.arrays,
            self.files + other.files,
            self.faults + other.faults,
            self.without_digests + other.without_digests,
        )

    def __str__(self) -> str:
        lines = [*self.faults, *(f"{place}: {NO_DIGESTS}" for place in self.without_digests)]
        counts = f"{self.arrays:,} arrays, {self.files:,} files"
        if self.faults:
            lines.append(f"{counts}, faults: {len(self.faults)}")
        elif self.arrays or self.files:
            lines.append(f"{counts}, all as they were saved")
        return "\n".join(lines)


def verify(folder: str | Path) -> VerificationResult:
    """Verify a model folder, a checkpoint of one step, or a run's folder with all of these.

    InputError for a folder that is none of them; damage is listed in the result's `faults`.
    """
    folder = as_path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder")
    if (folder / model_folder.CONFIG).exists() or (folder / digests.FILE_NAME).exists():
        return _model(folder)
    if (folder / PARAMS).is_dir():
        return _checkpoint(folder)
    steps = folder / CHECKPOINTS if (folder / CHECKPOINTS).is_dir() else folder
    names = sorted((path.name for path in steps.iterdir() if path.name.isdecimal()), key=int)
    parts = [_checkpoint(steps / name) for name in names]
    if (folder / MODEL).is_dir():
        parts.append(_model(folder / MODEL))
    if parts:
        return sum(parts, start=VerificationResult())
    raise InputError(
        f"{folder}: neither a model folder nor a training run's; expected config.json or "
        "checkpoints/ in it"
    )


def record(folder: str | Path) -> VerificationResult:
    """Record the digests of a model folder again, in place of the earlier ones."""
    folder = as_path(folder)
    model_folder.read_config(folder)
    has_params = (folder / PARAMS).is_dir()
    params = model_folder.restore_params(folder) if has_params else {}
    written = digests.write_digests(folder, digests.digest_arrays(params))
    return VerificationResult(len(written.arrays), len(written.files))


def _checkpoint(folder: Path) -> VerificationResult:
    """Compare a step as stored, without a model or a mesh of the right shape."""
    try:
        record = tree_checksums.read_record(folder)
        if record is None:
            return VerificationResult(without_digests=(str(folder),))
        config = read_json(folder / "config" / "metadata")
        found: dict[str, str] = {}
        for item, prefix in ((PARAMS, f"{PARAMS}/"), ("train", "")):
            arrays = model_folder.restore_params(folder, name=item)
            found |= tree_checksums.checksums(arrays, prefix)
    except InputError as error:
        return VerificationResult(faults=(str(error),))
    faults = [
        *tree_checksums.checksum_faults(record, found),
        *(f"{name}: is absent" for name in sorted(record["arrays"].keys() - found.keys())),
        *tree_checksums.config_faults(record, config),
    ]
    # A run's own files are next to the folder of its checkpoints.
    files = {
        name: path.read_bytes()
        for path in folder.resolve().parent.parent.glob("*.model")
        if (name := path.name) in record["files"] and path.is_file()
    }
    faults += tree_checksums.file_faults(record, files)
    return VerificationResult(
        len(found), 1 + len(files), tuple(f"{folder}: {fault}" for fault in faults)
    )


def _model(folder: Path) -> VerificationResult:
    try:
        recorded = model_folder.read_recorded_digests(folder)
        if recorded is None:
            model_folder.read_config(folder)
            return VerificationResult(without_digests=(str(folder),))
    except InputError as error:
        return VerificationResult(faults=(str(error),))
    faults = list(_array_faults(folder, recorded)) + [
        f"{folder}: {fault}" for fault in digests.file_faults(folder, recorded)
    ]
    return VerificationResult(len(recorded.arrays), len(recorded.files), tuple(faults))


def _array_faults(folder: Path, recorded: digests.Digests) -> list[str]:
    if not recorded.arrays and not (folder / PARAMS).is_dir():
        return []
    wrong: list[str] = []

    def check(headers: Mapping[str, Any]) -> None:
        # Arrays of other sizes are not read: a damaged size might be anything.
        wrong.extend(f"{folder}: {fault}" for fault in digests.header_faults(recorded, headers))
        if wrong:
            raise InputError(wrong[0])

    try:
        params = model_folder.restore_params(folder, check)
    except InputError as error:
        return wrong or [str(error)]
    found = digests.digest_arrays(params)
    return [f"{folder}: {fault}" for fault in digests.array_faults(recorded, found)]
