"""youtokentome's models as sentencepiece models that give the same ids, and back.

python -m converters youtokentome bpe.model FOLDER
"""

from __future__ import annotations

import functools
import io
import tempfile
from pathlib import Path

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from clip_jax.errors import InputError
from clip_jax.tokenizer import FILE_NAME
from converters.bpe_file import (
    SEPARATORS,
    SPECIALS,
    WORD_START,
    BpeModel,
    check_length,
    inexact_pieces,
    parse,
)
from converters.conversion import ForeignCheckpoint, ModelFolder
from converters.files import read_bytes

_BPE = 2  # TrainerSpec.ModelType
Piece = sentencepiece_model_pb2.ModelProto.SentencePiece


ORIGINAL_NAME = "bpe.model"


def read(path: Path) -> ForeignCheckpoint:
    """Read a model file, or bpe.model in a folder."""
    file = path / ORIGINAL_NAME if path.is_dir() else path
    tokenizer = to_sentencepiece(parse(read_bytes(file), str(file)), str(file))
    return ForeignCheckpoint("tokenizer", {}, sidecar_files=(file,), files={FILE_NAME: tokenizer})


def export(model: ModelFolder, folder: Path) -> None:
    """Write bpe.model."""
    tokenizer = read_bytes(model.folder / FILE_NAME)
    original = from_sentencepiece(tokenizer, str(model.folder / FILE_NAME))
    (folder / ORIGINAL_NAME).write_text(original.to_text(), encoding="ascii")


def to_sentencepiece(model: BpeModel, where: str) -> bytes:
    """Return a sentencepiece model with the same ids for every text.

    InputError names the pieces of a model that sentencepiece cannot reproduce exactly.
    """
    _refuse_inexact(model, where)
    proto = sentencepiece_model_pb2.ModelProto()
    rank = {together: rank for rank, (_, _, together) in enumerate(model.rules)}
    special = dict(zip(model.specials, SPECIALS, strict=True))
    for i in range(model.vocab_size):
        piece = proto.pieces.add()
        if i in special:
            piece.piece, piece.score = special[i], 0
            piece.type = Piece.UNKNOWN if i == model.unk else Piece.CONTROL
        else:
            # sentencepiece merges the highest score first; characters never result from a merge.
            piece.piece, piece.type = model.pieces[i], Piece.NORMAL
            piece.score = -float(rank.get(i, len(model.rules)))
    trainer = proto.trainer_spec
    trainer.model_type, trainer.vocab_size = _BPE, model.vocab_size
    trainer.unk_id, trainer.pad_id, trainer.bos_id, trainer.eos_id = model.specials
    trainer.unk_piece, trainer.pad_piece, trainer.bos_piece, trainer.eos_piece = SPECIALS
    normalizer = proto.normalizer_spec
    normalizer.name = "youtokentome"
    normalizer.precompiled_charsmap = whitespace_charsmap()
    normalizer.add_dummy_prefix = True
    normalizer.remove_extra_whitespaces = True
    normalizer.escape_whitespaces = True
    return proto.SerializeToString()


def from_sentencepiece(content: bytes, where: str) -> BpeModel:
    """Return the youtokentome model with the same ids for every text.

    This is the inverse of `to_sentencepiece`. Models that sentencepiece trained are accepted if
    they are BPE with youtokentome's definition of a space. InputError names what has no
    counterpart.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise InputError(f"{where}: not a sentencepiece model") from error
    _check_settings(proto, where)
    specials = _specials(proto, where)
    characters: dict[str, int] = {}
    joined: list[tuple[float, int]] = []
    squares = 0
    for i, piece in enumerate(proto.pieces):
        if i in specials:
            continue
        squares = check_length(len(piece.piece), squares, f"{where}: id {i} is")
        if piece.type != Piece.NORMAL or not piece.piece:
            kind = Piece.Type.Name(piece.type)
            raise InputError(f"{where}: piece {i} {piece.piece!r} is {kind}; expected NORMAL")
        if len(piece.piece) == 1:
            characters[piece.piece] = i
        else:
            joined.append((-piece.score, i))
    if WORD_START not in characters:
        raise InputError(f"{where}: has no piece U+2581, which begins each word")
    joined.sort()
    if len({score for score, _ in joined}) != len(joined):
        raise InputError(f"{where}: two merges have one score; youtokentome needs an order")
    rules: list[tuple[int, int, int]] = []
    ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    ranks = {proto.pieces[i].piece: rank for rank, (_, i) in enumerate(joined)}
    for rank, (_, i) in enumerate(joined):
        text = proto.pieces[i].piece
        pair = _last_merge(text, ranks, rank)
        if len(pair) != 2 or not all(part in ids and ids[part] not in specials for part in pair):
            raise InputError(
                f"{where}: piece {i} {text!r} is not made of two earlier pieces but of "
                f"{' + '.join(map(repr, pair))}; youtokentome cannot express it"
            )
        rules.append((ids[pair[0]], ids[pair[1]], i))
    model = BpeModel(characters, tuple(rules), *specials)
    _refuse_inexact(model, where)
    return model


@functools.cache
def whitespace_charsmap() -> bytes:
    """Compile sentencepiece's map of every separator but the space itself to a space.

    Only sentencepiece's trainer compiles such maps, so a throw-away model is trained for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "whitespace.tsv")
        table.write_text("".join(f"{ord(c):X}\t20\n" for c in SEPARATORS if c != " "))
        trained = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b"]),
            model_writer=trained,
            model_type="char",
            vocab_size=6,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(table),
            minloglevel=2,
        )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(trained.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def _refuse_inexact(model: BpeModel, where: str) -> None:
    reasons = inexact_pieces(model)
    if reasons:
        more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise InputError(
            f"{where}: youtokentome and sentencepiece would encode some text differently: "
            f"{'; '.join(reasons[:5])}{more}"
        )


def _check_settings(proto: sentencepiece_model_pb2.ModelProto, where: str) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    found = {
        "model_type is not bpe": trainer.model_type != _BPE,
        "byte_fallback is on": trainer.byte_fallback,
        "treat_whitespace_as_suffix is on": trainer.treat_whitespace_as_suffix,
        "add_dummy_prefix is off": not normalizer.add_dummy_prefix,
        "remove_extra_whitespaces is off": not normalizer.remove_extra_whitespaces,
        "escape_whitespaces is off": not normalizer.escape_whitespaces,
        "its normalisation is not 'every separator to a space'": (
            normalizer.precompiled_charsmap != whitespace_charsmap()
        ),
    }
    wrong = [text for text, is_so in found.items() if is_so]
    if wrong:
        raise InputError(f"{where}: youtokentome cannot express this model: {', '.join(wrong)}")


def _specials(proto: sentencepiece_model_pb2.ModelProto, where: str) -> tuple[int, int, int, int]:
    trainer = proto.trainer_spec
    ids = (trainer.unk_id, trainer.pad_id, trainer.bos_id, trainer.eos_id)
    kinds = (Piece.UNKNOWN, Piece.CONTROL, Piece.CONTROL, Piece.CONTROL)
    for name, i, kind in zip(SPECIALS, ids, kinds, strict=True):
        if not 0 <= i < len(proto.pieces) or proto.pieces[i].type != kind:
            raise InputError(f"{where}: has no piece for {name}; youtokentome needs one")
    return ids


def _last_merge(text: str, ranks: dict[str, int], rank: int) -> list[str]:
    """Return how sentencepiece splits `text` with only the merges before `rank`."""
    parts = list(text)
    while len(parts) > 1:
        together = [a + b for a, b in zip(parts, parts[1:], strict=False)]
        fitting = [(ranks[s], at) for at, s in enumerate(together) if ranks.get(s, rank) < rank]
        if not fitting:
            break
        at = min(fitting)[1]
        parts[at : at + 2] = [together[at]]
    return parts
