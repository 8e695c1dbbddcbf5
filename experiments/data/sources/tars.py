"""Tar files in the manner of webdataset: key.jpg beside key.txt or key.json.

Members are read where they lie; nothing is unpacked, whatever their names are.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from experiments.data.sources.columns import read_texts
from experiments.data.sources.plan import Options, Plan, stamps
from experiments.data.sources.records import (
    LARGEST_FILE,
    BadRecord,
    Candidate,
    Rejected,
    printable,
)
from experiments.data.sources.spans import Span, read_span

PICTURES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "json")

Members = dict[str, bytes]  # by extension


def fits(source: Path) -> bool:
    return source.suffix == ".tar" if source.is_file() else any(source.glob("*.tar"))


def plan(options: Options) -> Plan:
    """Pieces are whole tar files, named inside the source's folder."""
    source = Path(options.source)
    folder = source if source.is_dir() else source.parent
    files = sorted(source.glob("*.tar")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise InputError(f"{source}: no *.tar here")
    return Plan(options, stamps(folder, files), [file.name for file in files])


def read(options: Options, piece: str) -> Iterator[Candidate | Rejected]:
    source = Path(options.source)
    file = source / piece if source.is_dir() else source
    for key, spans in records(file, (*PICTURES, *TEXTS)):
        where = {"file": piece} if key is None else {"file": piece, "key": printable(key)}
        try:
            if isinstance(spans, BadRecord):
                raise spans
            members = {kind: read_span(file, span) for kind, span in spans.items()}
            image = next((members[kind] for kind in PICTURES if kind in members), None)
            if image is None and options.what.picture:
                raise BadRecord(f"picture is missing: no member {' or '.join(PICTURES)}")
            yield Candidate(f"{piece}/{key}", where, image, _texts(members, options))
        except BadRecord as error:
            yield Rejected(where, str(error))


def _texts(members: Members, options: Options) -> dict[str, Any]:
    """Of key.json; captions of key.txt, unless a column is asked for or json is all there is."""
    kinds = ("json",)
    if options.form == "captions":
        kinds = TEXTS
        if "txt" in members and not options.caption_column:
            return {"captions": [members["txt"]]}
    if "json" not in members:
        noun = options.what.columns[options.what.several].noun
        raise BadRecord(f"{noun} is missing: no member {' or '.join(kinds)}")
    try:
        about = json.loads(members["json"])
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"json cannot be read: {error}") from error
    if not isinstance(about, dict):
        raise BadRecord("json holds no object")
    return read_texts(about, options)


def records(
    file: Path, kinds: Collection[str]
) -> Iterator[tuple[str | None, dict[str, Span] | BadRecord]]:
    """Consecutive members of one key, by extension; a damaged end comes without a key."""
    key: str | None = None
    members: dict[str, Span] = {}
    wrong: BadRecord | None = None
    try:
        with tarfile.open(file, "r:", errors="surrogateescape") as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")
                stem, dot, kind = name.partition(".")
                kind = kind.lower()
                if not member.isreg() or member.issparse() or not stem or kind not in kinds:
                    continue
                if folder + slash + stem != key:
                    if key is not None:
                        yield key, wrong or members
                    key, members, wrong = folder + slash + stem, {}, None
                if kind in members:
                    wrong = BadRecord(f"two members are called {kind}")
                elif member.size > LARGEST_FILE:
                    wrong = BadRecord(f"member {kind} is too large: {member.size} bytes")
                else:
                    members[kind] = member.offset_data, member.size
            # What is no header ends the archive without a word, as zeros do.
            tar.fileobj.seek(tar.offset)
            end = tar.fileobj.read(tarfile.BLOCKSIZE)
        damage = f"no header at byte {tar.offset}" if end.strip(b"\0") else ""
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        damage, wrong = str(error), BadRecord("tar is damaged here")
    if key is not None:
        yield key, wrong or members
    if damage:
        yield None, BadRecord(f"tar is damaged: {damage}")
