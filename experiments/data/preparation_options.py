"""Checks the options of a preparation before anything is listed or written."""

from __future__ import annotations

import re

from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.text import escape
from experiments.config.data import BACKGROUNDS
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.schema import COLUMNS, SCHEMAS
from experiments.data.sources.shards import WriteConfig


def check_options(
    write_config: WriteConfig, config: SourceConfig, workers: int, vqgan: str
) -> None:
    """Raises InputError for an option that no source suits, or two that exclude each other."""
    if config.form not in SCHEMAS:
        raise InputError(f"--form is {config.form!r}; expected one of {', '.join(SCHEMAS)}")
    for name, column in COLUMNS.items():
        if getattr(config, column.field) and name not in config.schema.columns:
            wish = ", ".join(form for form, schema in SCHEMAS.items() if name in schema.columns)
            raise InputError(
                f"{column.option} is given, and --form={config.form} has no such column; "
                f"expected --form to be one of {wish}"
            )
    if vqgan and not config.schema.has_image:
        raise InputError(f"--vqgan is given, and --form={config.form} has no images to encode")
    if write_config.index_only:
        for option, given in (("--vqgan", vqgan), ("--max-side", write_config.max_side)):
            if given:
                raise InputError(
                    f"--index-only and {option} exclude each other: images stay as they are in the "
                    "tars; leave one out"
                )
        if not config.schema.has_image:
            raise InputError(f"--index-only is given, and --form={config.form} has no images")
    split, side = write_config.split, write_config.max_side
    for name, good, wish in (
        # TFDS takes "all" for all splits together.
        ("split", split != "all" and re.fullmatch(r"[a-zA-Z]\w*", split, re.ASCII),
         "a letter, and letters, digits and _, but not 'all'"),
        ("validation", 0 <= write_config.validation < 1, "a share, 0 to below 1"),
        ("max_side", side is None or side > 0, "a positive number of pixels"),
        ("background", write_config.background in ("", *BACKGROUNDS),
         f"one of {', '.join(BACKGROUNDS)}"),
        ("shard_records", write_config.shard_records > 0, "a positive number"),
        ("shard_bytes", write_config.shard_bytes > 0, "a positive number"),
    ):
        if not good:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(write_config, name)!r}; expected {wish}"
            )
    if write_config.validation and split == "validation":
        raise InputError("--split is 'validation', as is the split of --validation; rename one")
    if workers < 1:
        raise InputError(f"--workers is {workers}; expected at least 1")
    if config.data_dir and not as_path(config.data_dir).is_dir():
        raise InputError(f"--data-dir is {config.data_dir!r}; no such folder")


def check_kind(write_config: WriteConfig, config: SourceConfig) -> None:
    """Raises InputError for an option that does not suit the kind of source that was found."""
    if write_config.index_only and config.kind != "tar":
        raise InputError(
            f"{escape(config.source)}: --index-only is of tars, and these are records of kind "
            f"{config.kind!r}; leave it out"
        )
