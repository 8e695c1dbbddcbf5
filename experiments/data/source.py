"""A split of a prepared data set with random access: images as files, texts as str."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from absl import logging as absl_logging
from filelock import FileLock

from clip_jax.errors import InputError
from clip_jax.paths import as_path, local_path
from clip_jax.progress import elapsed_lines
from experiments.config.data import DataConfig
from experiments.data.image_index import INDEX, PLACE, TAR, IndexedRows
from experiments.data.mixture import Mixture
from experiments.data.shard_readers import ShardReaders
from experiments.data.sources.labels import MissingSplit
from experiments.data.sources.schema import BACKGROUND

# Of ordinary wheels, the last of archives that a person fetches too (`emoji_archives.py`).
BUILTIN_SETS = ("digits_ru", "emoji_ru", "emoji_styles_ru")


def build_builtin_set(name: str, directory: str | Path) -> Path:
    """Builds a built-in set into `directory` unless it is there; returns its version's folder.

    directory: local, else InputError. It takes seconds and needs no network. TFDS writes beside and
    renames, so an interrupted build leaves nothing that looks finished. Of several processes one
    builds, the others wait.
    """
    if name not in BUILTIN_SETS:
        raise InputError(f"data set {name!r} is unknown; expected one of {', '.join(BUILTIN_SETS)}")
    place = local_path(directory, "a built-in set")
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("etils").setLevel(logging.ERROR)
    import tensorflow_datasets as tfds  # slow, and not needed to refuse a name

    from experiments.data.builders import BUILDERS  # classes of TFDS, which is imported only now

    # The default format would need TensorFlow.
    builder = BUILDERS[name](data_dir=str(place), file_format="array_record")
    folder = Path(builder.data_path)
    if folder.is_dir():
        return folder
    tfds.disable_progress_bar()
    place.mkdir(parents=True, exist_ok=True)
    with (
        # Both would write into a folder of the same name, and the second could not rename it.
        FileLock(place / f".{name}.lock"),
        contextlib.redirect_stdout(io.StringIO()),  # TFDS speaks of a download that there is not
        elapsed_lines(f"building {name}"),
    ):
        builder.download_and_prepare()
    return folder


class Split:
    """`split[i]` is {"image": bytes of a PNG or JPEG, "captions": list of str, ...}.

    Of questions it is {"question": str, "answers": list of str} with an "image", with a "context"
    or with neither. Other features come as TFDS gives them, text decoded. `features` describes
    them, `metadata` has what else was written when the set was prepared, `has_images` tells whether
    rows have images. A set of bare images has no captions.
    """

    def __init__(self, folder: Path, split: str) -> None:
        """folder: of one version of a TFDS set in ArrayRecord form, as `prepare` leaves it."""
        import tensorflow_datasets as tfds  # slow: a wrong config is refused without it

        try:
            builder = tfds.builder_from_directory(str(folder))
        except (FileNotFoundError, ValueError, OSError) as error:
            raise InputError(f"{folder}: no prepared data set here") from error
        if split not in builder.info.splits:
            known = list(builder.info.splits)
            raise MissingSplit(
                f"{folder}: has no split {split!r}; expected one of {', '.join(known)}",
                split, known,
            )  # fmt: skip
        self.features = builder.info.features
        self.metadata = dict(builder.info.metadata or {})
        self.name = split
        self.shards: ShardReaders | None = None
        self._folder = folder
        if INDEX in self.metadata:
            image = tfds.features.Image(shape=(None, None, 3))
            others = {key: self.features[key] for key in self.features if key not in (TAR, PLACE)}
            self.features = {**others, "image": image}
        self._need("'image' or 'question'", {"image", "question"})
        self.has_images = "image" in self.features
        self._rows = self._open_rows(builder)
        if not len(self._rows):
            raise InputError(f"{folder}: split {split!r} is empty")

    def _open_rows(self, builder: Any) -> Sequence[Mapping[str, Any]]:
        decoders: Any = {}
        if self.has_images and INDEX not in self.metadata:
            import tensorflow_datasets as tfds

            decoders = {"image": tfds.decode.SkipDecoding()}
        if builder.info.file_format.value != "array_record":
            return builder.as_data_source(self.name, decoders=decoders or None)
        # TFDS's own source keeps each shard open that was ever read, and takes ten times as long
        # to start with many.
        split = builder.info.splits[self.name]
        lengths, template = split.shard_lengths, split.filename_template
        self.shards = ShardReaders(
            lengths,
            lambda i: str(template.sharded_filepath(shard_index=i, num_shards=len(lengths))),
        )
        rows = _DecodedRows(self.shards, builder.info.features, decoders or None)
        index = self.metadata.get(INDEX)
        return IndexedRows(rows, index["folder"]) if index else rows

    def __str__(self) -> str:
        return str(self._folder)

    @property
    def parts(self) -> list[tuple[range, float]]:
        """Returns the rows' numbers and their weight: one part, all of it."""
        return [(range(len(self)), 1.0)]

    @property
    def backgrounds(self) -> set[str]:
        """Returns the background that the set states for transparent pixels, "" for none stated."""
        return {self.metadata.get(BACKGROUND, "")}

    @property
    def sources(self) -> list[str]:
        """Returns the names of what `locate` counts."""
        return [f"{self._folder} {self.name}"]

    def locate(self, index: int) -> tuple[int, int]:
        """Returns which of `sources` a row is of, and its number there."""
        return 0, index

    def require_images(self) -> None:
        """Raises InputError where the set has none; the others do so for what they name."""
        self._need("'image'", {"image"})

    def require_captions(self) -> None:
        self._need("'image' and 'caption' or 'captions'", {"caption", "captions"})

    def require_questions(self) -> None:
        for name in ("question", "answers"):
            self._need("'question' and 'answers'", {name})

    def require_texts(self) -> None:
        self._need("'captions' or 'question'", {"caption", "captions", "question"})

    def _need(self, wish: str, any_of: set[str]) -> None:
        if not any_of & set(self.features):
            found = ", ".join(sorted(self.features))
            raise InputError(f"{self._folder}: features are {found}; expected {wish}")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self._rows):
            raise IndexError(index)  # which also ends an iteration
        raw = self._rows[index]
        row = {key: _decode(value) for key, value in raw.items() if key != "image"}
        if "caption" in row and "captions" not in row:
            row["captions"] = [row["caption"]]
        return {**row, "image": raw["image"]} if self.has_images else row


class _DecodedRows(Sequence[Mapping[str, Any]]):
    """The records of shards, as TFDS decodes them."""

    def __init__(self, shards: ShardReaders, features: Any, decoders: Any) -> None:
        self._shards, self._features, self._decoders = shards, features, decoders

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: Any) -> Any:
        record = self._shards[index]
        return self._features.deserialize_example_np(record, decoders=self._decoders)


class OwnSplit(Split):
    """A split whose rows a function of the experiment file returns (`Extensions.data`)."""

    def __init__(self, name: str, split: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not len(rows):
            raise InputError(f"{name}: split {split!r} is empty")
        self.features = dict.fromkeys(rows[0])
        self.metadata = {}
        self.name = split
        self.shards = None
        self._folder = Path(name)
        self._need("'image' or 'question'", {"image", "question"})
        self.has_images = "image" in self.features
        self._rows = rows


def all_texts(row: dict[str, Any]) -> list[str]:
    """Returns all that there is to read in a row."""
    single = [row[name] for name in ("context", "question") if name in row]
    return [*single, *row.get("captions", []), *row.get("answers", [])]


def open_split(
    config: DataConfig,
    split: str,
    own: Mapping[str, Callable[[str], Sequence[Mapping[str, Any]]]] = MappingProxyType({}),
) -> Split | Mixture:
    """Opens a split of the set that `config` names, or that split of all sets that it mixes.

    own: functions that return the rows of a split, by the name of their set.
    """
    splits = {
        name: OwnSplit(name, split, own[name](split)) if name in own
        else _open_one(name, config, split)
        for name in config.weights
    }  # fmt: skip
    opened = (
        Mixture(list(splits.values()), list(config.weights.values()))
        if config.mix
        else splits[config.name]
    )
    if config.group_by and config.group_by not in opened.features:
        known = ", ".join(sorted(opened.features))
        raise InputError(
            f"config.data.group_by is {config.group_by!r}; expected one of {known}, or "
            "--config.data.group_by= for batches of any examples"
        )
    return opened


def _open_one(name: str, config: DataConfig, split: str) -> Split:
    """Opens a built-in set, built on first use, or a prepared folder."""
    if name in BUILTIN_SETS:
        return Split(build_builtin_set(name, config.directory), split)
    folder = as_path(name)
    if not folder.is_dir():
        found = f"config.data.mix names {name!r}" if config.mix else f"config.data.name is {name!r}"
        raise InputError(
            f"{found}; expected one of {', '.join(BUILTIN_SETS)} or the folder of a prepared "
            "TFDS set"
        )
    return Split(folder, split)


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, list | tuple) or (hasattr(value, "dtype") and value.dtype == object):
        return [_decode(item) for item in value]
    return value
