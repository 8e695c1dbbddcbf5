"""A hub that sends wrong answers, and the check that nothing of the user's is touched."""

import random
from pathlib import Path

import pytest

from clip_jax import InputError
from converters import hub_files, pretrained

NAME = "ruclip-vit-base-patch32-384"
REPO = f"ai-forever/{NAME}"
WEIGHTS, WORDS = "pytorch_model.bin", "bpe.model"
HEAD = b"HTTP/1.1 200 OK\r\n"

# No model: a conversion of them fails, but leaves a snapshot, which `refused` finds.
FILES = {
    WEIGHTS: b"\0" + random.Random(0).randbytes(20_000),
    "config.json": b"{}",
    WORDS: random.Random(1).randbytes(3000),
    "README.md": b"a card",
}


def outside(tmp_path: Path) -> dict[str, bytes | None]:
    """Return all that is in neither cache."""
    caches = (tmp_path / "hub", tmp_path / "cache")
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in tmp_path.rglob("*")
        if not any(path.is_relative_to(cache) for cache in caches)
    }


def refused(tmp_path: Path, model: str = NAME) -> str:
    """The one line that a hub's answer ends as; nothing is left of it."""
    before = outside(tmp_path)
    with pytest.raises(InputError) as caught:
        pretrained(model)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 1500, line
    assert outside(tmp_path) == before
    models = tmp_path / "cache" / "rudolph-jax" / "models"
    assert not list(models.iterdir())
    assert not [p for p in tmp_path.glob("hub/*/snapshots/*/**/*") if not p.is_dir()]
    for path in tmp_path.glob("hub/*/blobs/*"):
        assert path.is_file() and not path.is_symlink()
    return line


def is_mended(hub) -> None:
    """An honest answer is enough after whatever went before."""
    hub.heal()
    names = [WEIGHTS, "config.json", WORDS]
    fetched = hub_files.fetch(hub_files.fetch_listing(REPO), names)
    assert {name: fetched[name].read_bytes() for name in names} == {n: FILES[n] for n in names}


def replaced(key: str, value: object, file: str = ""):
    """A listing with another value: of the repository's, or of one file's."""

    def change(listing):
        parts = listing if not file else next(
            s for s in listing["siblings"] if s["rfilename"] == file
        )  # fmt: skip
        *outer, last = key.split(".")
        for part in outer:
            parts = parts[part]
        parts[last] = value
        return listing

    return change


def send(handler, status: int, headers: dict, *parts: bytes) -> None:
    """Raw: the headers as they are, then pieces as they come."""
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    handler.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if handler.command != "HEAD":
        for part in parts:
            handler.wfile.write(part)


def redirect(to: str, status: int = 302):
    return lambda handler, _: send(handler, status, {"Location": to, "Content-Length": 0})


def whole(content: bytes) -> dict:
    return {"Content-Length": len(content)}
