"""youtokentome's model file: its text, its encoder, and whether sentencepiece can stand in for it.

3 2             characters, merge rules
9601 4          code point, id
1072 5
1073 6
5 6 7           left id, right id, id of the two together; earlier rules go first
4 7 8
1 0 2 3         ids of UNK, PAD, BOS, EOS
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from clip_jax.errors import InputError

WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
# What separates words: C's isspace and the mark itself; a no-break space is an ordinary character.
SEPARATORS = " \t\n\v\f\r" + WORD_START
SPECIALS = ("<UNK>", "<PAD>", "<BOS>", "<EOS>")  # as youtokentome spells them when decoding
_UNKNOWN = -1
# Checking a piece takes time by the square of its length (`inexact_pieces`): characters of one, of
# which the published vocabularies have some twenty, and the sum of the squares.
MAX_PIECE, MAX_SQUARES = 256, 1 << 25


@dataclass(frozen=True)
class BpeModel:
    """Hold a BPE model.

    characters: character -> id.
    rules: (left, right, merged id), in order of priority.
    """

    characters: Mapping[str, int]
    rules: tuple[tuple[int, int, int], ...]
    unk: int
    pad: int
    bos: int
    eos: int

    @property
    def specials(self) -> tuple[int, int, int, int]:
        """Return the ids in the order of `SPECIALS`."""
        return self.unk, self.pad, self.bos, self.eos

    @property
    def vocab_size(self) -> int:
        return len(self.pieces) + len(self.specials)

    @cached_property
    def pieces(self) -> dict[int, str]:
        """Map id to text, for every piece that is not special."""
        pieces = {i: character for character, i in self.characters.items()}
        for left, right, together in self.rules:
            pieces[together] = pieces[left] + pieces[right]
        return pieces

    @cached_property
    def ranks(self) -> dict[tuple[int, int], int]:
        """Map (left, right) to the index of its rule."""
        return {(left, right): rank for rank, (left, right, _) in enumerate(self.rules)}

    def encode(self, text: str) -> list[int]:
        """Encode as youtokentome (without BOS, EOS and dropout). Readable, not fast."""
        words = re.split(f"[{SEPARATORS}]+", text)
        return [i for word in words if word for i in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        ids: list[int] = []
        for character in WORD_START + word:
            i = self.characters.get(character, _UNKNOWN)
            if i != _UNKNOWN or ids[-1] != _UNKNOWN:  # a run of unknowns is one UNK
                ids.append(i)
        return [self.unk if i == _UNKNOWN else i for i in self.merge(ids)]

    def merge(self, ids: list[int]) -> list[int]:
        """Apply the rule of highest priority at its leftmost position until none fits."""
        ids = list(ids)
        while True:
            pairs = enumerate(zip(ids, ids[1:], strict=False))
            fitting = [(self.ranks[pair], at) for at, pair in pairs if pair in self.ranks]
            if not fitting:
                return ids
            rank, at = min(fitting)
            ids[at : at + 2] = [self.rules[rank][2]]

    def to_text(self) -> str:
        """Return the model file, characters by id; youtokentome's order is a hash table's."""
        lines = [f"{len(self.characters)} {len(self.rules)}"]
        by_id = sorted(self.characters.items(), key=lambda item: item[1])
        lines += [f"{ord(character)} {i}" for character, i in by_id]
        lines += [f"{left} {right} {together}" for left, right, together in self.rules]
        lines.append(" ".join(map(str, self.specials)))
        return "\n".join(lines) + "\n"


def parse(content: bytes, where: str) -> BpeModel:
    """Parse a model file. where: its name in errors, which add the line. Raises InputError."""
    try:
        lines = content.removeprefix(codecs.BOM_UTF8).decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not a youtokentome model, it is not plain text") from error
    if lines[-1] == "":
        lines.pop()
    if lines and "-1" in lines[-1].split(" "):
        raise InputError(f"{where}: was trained without some of {', '.join(SPECIALS)}; needs all")
    first = _row(lines[0], 1, where) if lines else []
    if len(first) != 2:
        raise InputError(f"{where}: line 1 is not 'characters rules'; not a youtokentome model")
    n_characters, n_rules = first
    if len(lines) != n_characters + n_rules + 2:
        raise InputError(
            f"{where}: has {len(lines)} lines; {n_characters} characters and {n_rules} rules make "
            f"{n_characters + n_rules + 2}: cut short or damaged"
        )
    rows = [_row(line, number, where) for number, line in enumerate(lines, 1)]
    last = rows[-1]
    if len(last) != 4:
        raise InputError(f"{where}: line {len(rows)} is not the four ids of UNK, PAD, BOS, EOS")
    taken = dict(zip(last, SPECIALS, strict=True))
    if len(taken) != 4:
        raise InputError(f"{where}: line {len(rows)} gives one id to two of {', '.join(SPECIALS)}")
    characters: dict[str, int] = {}
    for number, row in enumerate(rows[1 : 1 + n_characters], 2):
        _check_row(row, 2, number, where)
        code, i = row
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF or chr(code) in characters:
            raise InputError(f"{where}: line {number}: {code} is no code point or is there twice")
        characters[chr(code)] = _assign_id(i, taken, f"U+{code:04X}", number, where)
    if WORD_START not in characters:
        raise InputError(f"{where}: has no character U+2581, which begins each word")
    rules: dict[tuple[int, int], int] = {}
    lengths = dict.fromkeys(characters.values(), 1)
    squares = 0
    for number, row in enumerate(rows[1 + n_characters : -1], 2 + n_characters):
        _check_row(row, 3, number, where)
        left, right, together = row
        if left not in lengths or right not in lengths or (left, right) in rules:
            raise InputError(
                f"{where}: line {number} joins {left} and {right}, which are not both pieces yet "
                "or are joined already"
            )
        rules[left, right] = _assign_id(together, taken, f"line {number}", number, where)
        lengths[together] = lengths[left] + lengths[right]
        squares = check_length(lengths[together], squares, f"{where}: line {number} makes")
    beyond = max(taken)
    if beyond != len(taken) - 1:
        raise InputError(f"{where}: has {len(taken)} ids, yet one of them is {beyond}")
    return BpeModel(characters, tuple((*pair, i) for pair, i in rules.items()), *last)


def check_length(length: int, squares: int, what: str) -> int:
    """Add a piece's squared length to the sum; InputError beyond the limits."""
    squares += length**2
    if length > MAX_PIECE or squares > MAX_SQUARES:
        raise InputError(
            f"{what} a piece of {length} characters, squares of lengths {squares} in all; expected "
            f"at most {MAX_PIECE} and {MAX_SQUARES}"
        )
    return squares


def inexact_pieces(model: BpeModel) -> list[str]:
    """List reasons why sentencepiece would encode some text differently, one a piece.

    sentencepiece merges by the text of the result, youtokentome by the pair of ids. They agree on
    every text if texts are unique, if each piece's own characters merge to just that piece, and if
    the mark of a word's start is only ever first: two adjacent pieces that join to the text of a
    piece then came about as they do inside that piece, whose last merge is its rule.
    """
    reasons = []
    owner = dict(zip(SPECIALS, model.specials, strict=True))
    for i, piece in model.pieces.items():
        if piece in owner:
            reasons.append(f"piece {i} and {owner[piece]} are both {piece!r}")
        owner.setdefault(piece, i)
        if WORD_START in piece[1:]:
            reasons.append(f"piece {i} {piece!r} spans the start of a word")
        own = model.merge([model.characters[character] for character in piece])
        if own != [i]:
            parts = " + ".join(repr(model.pieces[part]) for part in own)
            reasons.append(f"piece {i} {piece!r} encodes as {parts}")
    return reasons


def _row(line: str, number: int, where: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,9}( [0-9]{1,9})*", line):
        raise InputError(f"{where}: line {number} is not made of numbers; not a youtokentome model")
    return [int(word) for word in line.split(" ")]


def _check_row(row: list[int], length: int, number: int, where: str) -> None:
    if len(row) != length:
        raise InputError(f"{where}: line {number} has {len(row)} numbers; expected {length}")


def _assign_id(i: int, taken: dict[int, str], name: str, number: int, where: str) -> int:
    if i in taken:
        raise InputError(f"{where}: line {number} gives id {i}, which {taken[i]} has already")
    taken[i] = name
    return i
