"""Samples of a tar by webdataset's rule for keys, and by what real tars hold beside it.

A name's key is its path up to the first dot of the base name, its field the rest; consecutive
members of one key are a sample (webdataset's `base_plus_ext` and `group_by_keys`). Where that gives
no whole sample, names whose bases hold dots (`cat.v2.jpg` with `cat.v2.txt`) and members that are
apart in the tar are put together. docs/data.md ("Tars") states the rules.
"""

from __future__ import annotations

import collections
import dataclasses
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clip_jax.text import normalize_name
from experiments.data.sources.files import ByteRange
from experiments.data.sources.records import LARGEST_FILE, Ignored

EXTRA, OTHER = "extra field", "other extension"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Describe a complete sample: one of the images, if any are listed, and one of the texts.

    Extensions without their dots, by preference. noun: what messages call the text.
    """

    images: Sequence[str]
    texts: Sequence[str]
    noun: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """A whole sample: its members by extension, of which `items` are of use."""

    key: str
    members: dict[str, ByteRange]
    items: int


@dataclasses.dataclass(frozen=True)
class Unusable:
    """Members without a whole sample, or, without a key, the end of a damaged tar.

    is_incomplete: whether members are missing, and nothing else is wrong.
    """

    key: str | None
    why: str
    items: int
    is_incomplete: bool = False


@dataclasses.dataclass(frozen=True)
class _Member:
    """A member of use.

    key: webdataset's. stem: the name without its last extension, which is `kind`; in NFC. run: a
    number that consecutive members of one key share.
    """

    run: int
    key: str
    stem: str
    kind: str
    byte_range: ByteRange
    is_cut: bool = False


@dataclasses.dataclass
class _Scan:
    """Record what a tar holds besides members of use.

    ignored: members by the rule they fall under. damage: why the tar cannot be read to its end.
    last_is_cut: whether the data of the last member of use is not all there.
    """

    ignored: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    damage: str = ""
    last_is_cut: bool = False


def samples(file: Path, wanted: Wanted) -> Iterator[Sample | Unusable | Ignored]:
    """Whole samples in the order of the tar, then those put together from members that are apart.

    Each member is in one of what is yielded, and the unreadable end of a damaged tar counts as one
    more. A key that comes again gets a number: "cat", "cat#2".
    """
    groups, scan = _Groups(wanted), _Scan()
    run: list[_Member] = []
    for member in _members(file, wanted, scan):
        if run and member.run != run[0].run:
            yield from groups.take_whole(run)
            run = []
        run.append(member)
    if scan.last_is_cut:
        run[-1] = dataclasses.replace(run[-1], is_cut=True)
    yield from groups.take_whole(run)
    yield from groups.take_rest()
    for why, items in sorted(scan.ignored.items()):
        yield Ignored(why, items)
    if scan.damage:
        yield Unusable(None, f"tar is damaged: {' '.join(scan.damage.split())}", 1)


class _Groups:
    """Puts members together, whole samples first."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._pool: list[_Member] = []
        self._found: dict[str, set[str]] = {}  # extensions of whole samples, by stem
        self._keys: collections.Counter[str] = collections.Counter()

    def take_whole(self, run: list[_Member]) -> Iterator[Sample | Unusable | Ignored]:
        """Whole samples of consecutive members of one key; the others wait for `take_rest`."""
        for stem, members in _by(run, "stem").items():
            if self._has_all(members) and not self._fault(members):
                yield from self._whole(stem, members)
            elif _twice(members):
                # webdataset stops here; which of the two is meant cannot be known.
                yield Unusable(stem, self._fault(members), len(members))
            else:
                self._pool += members

    def take_rest(self) -> Iterator[Sample | Unusable | Ignored]:
        """Samples of members that are apart; extra fields; and what is left."""
        left: list[_Member] = []
        for stem, members in _by(self._pool, "stem").items():
            if self._has_all(members) and not self._fault(members):
                yield from self._whole(stem, members)
            else:
                left += members
        # Fields beside samples, when all samples are known.
        incomplete = [member for member in left if not self._is_extra(member)]
        if len(incomplete) < len(left):
            yield Ignored(EXTRA, len(left) - len(incomplete))
        for key, members in _by(incomplete, "key").items():
            if self._joins(key, members):
                yield from self._whole(key, members)
                continue
            for stem, group in _by(members, "stem").items():
                fault = self._fault(group)
                yield Unusable(stem, fault or self._lack(group), len(group), not fault)

    def _whole(self, stem: str, members: list[_Member]) -> Iterator[Sample | Ignored]:
        kinds = {member.kind: member.byte_range for member in members}
        used = {
            next(kind for kind in some if kind in kinds)
            for some in (self._wanted.images, self._wanted.texts)
            if some
        }
        self._found.setdefault(stem, set()).update(kinds)
        self._keys[stem] += 1
        number = self._keys[stem]
        key = stem if number == 1 else f"{stem}#{number}"
        yield Sample(key, {k: place for k, place in kinds.items() if k in used}, len(used))
        if len(members) > len(used):
            yield Ignored(EXTRA, len(members) - len(used))

    def _has_all(self, members: Sequence[_Member]) -> bool:
        kinds = {member.kind for member in members}
        needed = [some for some in (self._wanted.images, self._wanted.texts) if some]
        return all(kinds.intersection(some) for some in needed)

    def _is_extra(self, member: _Member) -> bool:
        """Return whether it is a field besides a complete sample: cat.seg.png next to cat.jpg."""
        found = self._found.get(member.stem)
        if found is not None and member.kind not in found:
            found.add(member.kind)
            return True
        folder, slash, base = member.stem.rpartition("/")
        parts = base.split(".")
        shorter = (folder + slash + ".".join(parts[:i]) for i in range(1, len(parts)))
        return any(stem in self._found for stem in shorter)

    def _joins(self, key: str, members: Sequence[_Member]) -> bool:
        """Return whether names that share only the first part are one sample: cat.v2.jpg, cat.txt.

        One of them must be of that very key, and there must be no choice.
        """
        if not self._has_all(members) or self._fault(members):
            return False
        images = [member for member in members if member.kind in self._wanted.images]
        texts = {member.stem for member in members if member.kind in self._wanted.texts}
        direct = any(member.stem == key for member in members)
        return direct and len(images) <= 1 and len(texts) == 1

    def _fault(self, members: Sequence[_Member]) -> str:
        """Why these members cannot be one sample, although nothing may be missing; or ""."""
        twice = _twice(members)
        if twice:
            return f"two members are called {twice}"
        for member in members:
            if member.is_cut:
                return "tar is damaged here"
            if member.byte_range[1] > LARGEST_FILE:
                return f"member {member.kind} is too large: {member.byte_range[1]} bytes"
        return ""

    def _lack(self, members: Sequence[_Member]) -> str:
        kinds = {member.kind for member in members}
        if self._wanted.images and not kinds.intersection(self._wanted.images):
            return f"image is missing: no member {', '.join(self._wanted.images)}"
        return f"{self._wanted.noun} is missing: no member {' or '.join(self._wanted.texts)}"


def _members(file: Path, wanted: Wanted, scan: _Scan) -> Iterator[_Member]:
    """The members of use; the others are counted by rule."""
    kinds = (*wanted.images, *wanted.texts)
    last, of_use = -1, False
    run, run_key = 0, None
    try:
        with tarfile.open(file, "r:", errors="surrogateescape") as tar:
            for info in tar:
                tar.members = []  # which would hold the heads of all
                if info.offset <= last or info.size < 0:
                    raise tarfile.ReadError(f"header at byte {info.offset} has wrong numbers")
                last = info.offset
                name = normalize_name(info.name)
                rule = _ignored_by(info, name, kinds)
                of_use = not rule
                folder, slash, base = name.rpartition("/")
                stem, _, kind = base.rpartition(".")
                key = folder + slash + base.partition(".")[0]
                if rule:
                    scan.ignored[rule] += 1
                if rule not in ("", OTHER) or not stem:
                    continue
                if key != run_key:
                    run, run_key = run + 1, key
                if of_use:
                    place = info.offset_data, info.size
                    yield _Member(run, key, folder + slash + stem, kind.lower(), place)
            # What is no header ends the archive without a word, as zeros do.
            tar.fileobj.seek(tar.offset)
            end = tar.fileobj.read(tarfile.BLOCKSIZE)
        if end.strip(b"\0"):
            scan.damage = f"no header at byte {tar.offset}"
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        # The reader fails at what should follow the last member.
        scan.damage, scan.last_is_cut = str(error), of_use


def _ignored_by(info: tarfile.TarInfo, name: str, kinds: Sequence[str]) -> str:
    """The rule by which a member is no part of a sample, or ""."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    base = name.rpartition("/")[2]
    if "__MACOSX" in parts or base.startswith("._"):
        return "macOS metadata"
    if info.isdir():
        return "directory"
    if info.issym() or info.islnk():
        return "link"
    if not info.isreg() or info.issparse():
        return "special file"
    if any(part.startswith(".") for part in parts):
        return "hidden file"
    return "" if base.rpartition(".")[2].lower() in kinds and "." in base else OTHER


def _by(members: Iterable[_Member], field: str) -> dict[str, list[_Member]]:
    found: dict[str, list[_Member]] = {}
    for member in members:
        found.setdefault(getattr(member, field), []).append(member)
    return found


def _twice(members: Sequence[_Member]) -> str:
    """An extension that two of the members have, or ""."""
    counted = collections.Counter(member.kind for member in members)
    return next((kind for kind, count in counted.items() if count > 1), "")
