"""A hub that is hostile or broken: one line, and nothing of the user's is touched."""

import gzip
import itertools
import json
import random
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from clip_jax import InputError
from converters import hub_files, hub_http, pretrained
from converters.__main__ import main
from converters.hub_errors import UnreachableError

NAME = "ruclip-vit-base-patch32-384"
REPO = f"ai-forever/{NAME}"
WEIGHTS, WORDS = "pytorch_model.bin", "bpe.model"
CHUNKED = {"Transfer-Encoding": "chunked", "Content-Length": None}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """No model: a conversion of them fails, but leaves a snapshot, which `refused` finds."""
    content = random.Random(0).randbytes
    weights = b"\0" + content(20_000)
    return {WEIGHTS: weights, "config.json": b"{}", WORDS: content(3000), "README.md": b"a card"}


@pytest.fixture
def hostile(hub, files, tmp_path):
    """A hub with a released model, and a user who has files beside the cache."""
    hub.put(REPO, files)
    for name in ("victim", "home/.ssh/key", "home/notes/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("the user's")
    yield hub
    hub.heal()


def outside(tmp_path: Path) -> dict[str, bytes | None]:
    """All that is not in one of the two caches."""
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


def is_mended(hub, files) -> None:
    """An honest answer is enough after whatever went before."""
    hub.heal()
    names = [WEIGHTS, "config.json", WORDS]
    fetched = hub_files.fetch(hub_files.listing(REPO), names)
    assert {name: fetched[name].read_bytes() for name in names} == {n: files[n] for n in names}


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


# -- what a hub says becomes no path


@pytest.mark.parametrize("header", ["X-Linked-ETag", "ETag"])
@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
@pytest.mark.parametrize("there", [True, False])
def test_an_etag_that_is_a_path(hostile, tmp_path, files, header, file, there):
    victim = tmp_path / ("victim" if there else "home/created")
    headers = {header: f'"{victim}"', "X-Linked-Size": str(len(files[file]))}
    hostile.acts[f"/{file}"] = lambda h, c: send(h, 200, {**headers, **whole(c)}, c)
    line = refused(tmp_path)
    assert f"{file}: the hub names the hash '{victim}'; expected 40 or 64 hexadecimal" in line
    is_mended(hostile, files)


def test_the_etag_of_a_redirect_is_nobodys(hostile, files):
    hostile.named["ETag"] = 'W/"302 by nginx"'
    found = hub_files.listing(REPO)
    assert hub_files.read_blob(found, WEIGHTS).read_bytes() == files[WEIGHTS]


@pytest.mark.parametrize("path", ["{T}/victim", "../../../victim", "../../../home/created"])
def test_a_commit_that_is_a_path(hostile, tmp_path, path):
    path = path.replace("{T}", str(tmp_path))
    hostile.listed = replaced("sha", path)
    assert f"names the commit {path!r}; expected 40" in refused(tmp_path)
    hostile.heal()
    hostile.named["X-Repo-Commit"] = path
    assert f"names the commit {path!r}; expected 40" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x", "leaves its folder"), ("a/../../x", "leaves its folder"), ("..", "leaves"),
        ("/etc/x", "leaves its folder"), ("C:\\x", "leaves its folder"), ("c:x", "leaves"),
        ("..\\x", "characters"), ("a\\b", "characters"), ("a\0b", "characters"),
        ("a\nb", "characters"), ("\x1b[2J", "characters"), ("a\u2028b", "characters"),
        ("\ud800", "characters"), (".", "name nothing"), ("", "name nothing"),
        ("a//b", "name nothing"), ("a/./b", "name nothing"), ("a/", "name nothing"),
        ("x" * 256, "longer than 255"), ("я" * 128, "longer than 255"),
        ("x/" * 600 + "x", "longer"),
        (None, "expected a path"), (3, "expected a path"), (["a"], "expected a path"),
    ],
)  # fmt: skip
def test_a_name_that_no_file_has(hostile, tmp_path, name, reason):
    hostile.listed = replaced("rfilename", name, "README.md")
    assert reason in refused(tmp_path)
    assert hostile.log == [f"GET /api/models/{REPO}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *itertools.product(["size"], [-1, True, 1.5, float("nan"), "9", None, 2**40 + 1, 10**30]),
        *itertools.product(["lfs.sha256"], ["", "f" * 63, "F" * 64, "0x" + "f" * 62, None, 7]),
        *itertools.product(["lfs"], [[], "x", 3, {}, True]),
        ("lfs.size", 3), ("lfs.sha256", "/etc/passwd"), ("lfs.sha256", "f" * 64 + "\n"),
    ],
)  # fmt: skip
def test_a_size_or_hash_of_another_kind(hostile, tmp_path, key, value):
    hostile.listed = replaced(key, value, WEIGHTS)
    line = refused(tmp_path)
    assert WEIGHTS in line and ("expected" in line or "two ways that differ" in line)
    assert len(hostile.log) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"), (b"<html>", "not JSON"), (b"\xff\xfe", "UTF-16"), (b"[]", "no listing"),
        (b"null", "no listing"), (b"{}", "no listing"), (b'{"siblings": {}}', "no listing"),
        (b'{"siblings": [1]}', "40 hexadecimal"), (b"[" * 10**5, "not JSON"),
        (b'{"siblings": [' + b"0," * 100_000 + b"0]}", "holds 100,001 files"),
        (b'{"siblings": [], "siblings": []}', "not JSON"), (b"1" * 5000, "not JSON"),
        (b" " * (32 << 20) + b"{}", "longer than 33,554,432 bytes"),
        (b'{"sha": "' + b"0" * 40 + b'", "siblings": [1]}', "lists 1 as a file"),
    ],
)  # fmt: skip
def test_a_malformed_listing(hostile, tmp_path, body, reason):
    hostile.listed = lambda _: body
    assert reason in refused(tmp_path)


def test_two_files_in_one_place(hostile, tmp_path):
    hostile.listed = lambda listing: {**listing, "siblings": listing["siblings"] * 2}
    assert f"lists '{WEIGHTS}' twice" in refused(tmp_path)
    hostile.heal()
    ours = json.dumps({"kind": "ruclip", "config": {}, "provenance": {}}).encode()
    for one, other in [("a/B", "A/b"), ("a", "a/b"), ("a/b/c", "A"), ("\u0439", "\u0438\u0306")]:
        hostile.put("some/model", {"config.json": ours, one: b"", other: b""})
        assert "which would take one place" in refused(tmp_path, "some/model")
    hostile.put("some/model", {"config.json": ours, "params": b""})
    assert "params is a file; expected a folder" in refused(tmp_path, "some/model")


@pytest.mark.parametrize("shard", ["../x", "/etc/x", "a/b", "..\\x", "a\0", "", "."])
def test_an_index_whose_shards_are_elsewhere(hostile, tmp_path, shard):
    index = json.dumps({"weight_map": {"a": "config.json", "b": shard}}).encode()
    config = json.dumps({"model_type": "clip"}).encode()
    hostile.put("some/clip", {"config.json": config, "model.safetensors.index.json": index})
    assert "is not the name of a file beside it" in refused(tmp_path, "some/clip")


# -- links in the cache


@pytest.mark.parametrize("part", ["blobs", "snapshots", ""])
def test_a_link_out_of_the_cache_is_not_followed(hostile, tmp_path, part):
    folder = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / part
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(tmp_path / "home", target_is_directory=True)
    before = outside(tmp_path)
    with pytest.raises(InputError, match="out of the cache .*; remove the link"):
        pretrained(NAME)
    assert outside(tmp_path) == before


@pytest.mark.parametrize("end", ["", ".incomplete"])
def test_a_blob_that_is_a_link_out_of_the_cache(hostile, tmp_path, end):
    digest = hub_files.listing(REPO).files[WEIGHTS].digest
    blob = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs" / (digest + end)
    blob.parent.mkdir(parents=True)
    for target in ("victim", "home/created"):
        blob.symlink_to(tmp_path / target)
        before = outside(tmp_path)
        with pytest.raises(InputError, match="out of the cache .*; remove the link"):
            pretrained(NAME)
        assert outside(tmp_path) == before
        blob.unlink()


def test_damage_is_removed_in_the_cache_alone(hostile, tmp_path, files):
    """A snapshot's link may lead to another place in the cache, which stays."""
    found = hub_files.listing(REPO)
    other = tmp_path / "hub" / "models--a--b" / "blobs" / "mine"
    pointer = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "snapshots" / found.commit
    for folder in (other.parent, pointer):
        folder.mkdir(parents=True)
    other.write_bytes(b"x" * len(files[WEIGHTS]))
    (pointer / WEIGHTS).symlink_to(other)
    with pytest.raises(InputError, match="has the hash .*; it is removed"):
        hub_files.read_blob(found, WEIGHTS)
    assert other.exists() and not (pointer / WEIGHTS).is_symlink()
    is_mended(hostile, files)


# -- bodies and redirects


def redirect(to: str, status: int = 302):
    return lambda handler, _: send(handler, status, {"Location": to, "Content-Length": 0})


@pytest.mark.parametrize(
    "to",
    [
        "file:///etc/passwd", "ftp://localhost/x", "data:,x", "https://", "http://[::1", "",
        "http://a:b@localhost/x", "http://localhost:99999/", "javascript:0",
        "http://localhost/" + "x" * 9000,
    ],
)  # fmt: skip
def test_a_redirect_to_no_server(hostile, tmp_path, to):
    for path in (f"models/{REPO}", f"/{WEIGHTS}"):
        hostile.acts = {path: redirect(to)}
        assert f"redirects to {to[:20]!r}"[:-1] in refused(tmp_path)


def test_a_redirect_from_https_to_http_is_refused():
    target = hub_http._target
    assert target("https://a.b/c", "/d", "x") == "https://a.b/d"
    assert target("http://a.b/c", "https://e/", "x") == "https://e/"
    with pytest.raises(InputError, match="by https$"):
        target("https://a.b/c", "http://a.b/d", "x")


def test_redirects_without_end(hostile, tmp_path):
    hostile.acts = {f"models/{REPO}": redirect(f"/api/models/{REPO}")}
    assert "redirects more than 5 times" in refused(tmp_path)
    assert len(hostile.log) == 6


def test_the_token_goes_to_the_hub_alone(hostile, files):
    """The loopback's store of large files asserts that none comes; and none comes back."""
    sent = []

    def bounce(handler, content):
        sent.append((handler.path, handler.headers.get("Authorization")))
        to = {"a": f"http://localhost:{hostile.server_port}/b", "b": f"{hostile.url}/c"}
        if name := to.get(handler.path.rpartition("/")[2], ""):
            return redirect(name)(handler, content)
        handler.tell({"sha": "0" * 40, "siblings": []})

    def first(handler, content):
        sent.append((handler.path, handler.headers.get("Authorization")))
        redirect("/a")(handler, content)

    hostile.acts = {"/a": bounce, "/b": bounce, "/c": bounce, f"models/{REPO}": first}
    hub_files.listing(REPO)
    token = "Bearer hf_loopback"
    assert [authorization for _, authorization in sent] == [token, token, None, None]


def test_a_token_that_no_header_holds(hostile, tmp_path, monkeypatch):
    for token in ("hf_ключ", "hf_a b", "hf_a\nX: y"):
        monkeypatch.setenv("HF_TOKEN", token)
        line = refused(tmp_path)
        assert "HF_TOKEN holds characters that no token has" in line and token not in line
    assert hostile.log == []


def whole(content: bytes) -> dict:
    return {"Content-Length": len(content)}


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def endless(handler, _):
    send(handler, 200, {"Transfer-Encoding": "chunked"}, *[chunk(b"x" * 65536)] * 10_000)


def test_more_or_less_than_announced(hostile, tmp_path, files):
    acts = hostile.acts
    acts[f"/{WORDS}"] = lambda h, c: send(h, 200, whole(c + b"!"), c, b"!")
    assert "it should be of size" in refused(tmp_path)
    acts[f"/{WORDS}"] = endless
    assert f"sends more than the {len(files[WORDS]):,} bytes" in refused(tmp_path)
    acts[f"/{WORDS}"] = lambda h, c: send(h, 200, {}, c, b"!")  # until the connection is closed
    assert "sends more than" in refused(tmp_path)
    acts[f"/{WORDS}"] = lambda h, c: send(h, 200, {}, c[:-1])
    assert f"ended after {len(files[WORDS]) - 1:,} bytes" in refused(tmp_path)
    acts.clear()
    acts[f"models/{REPO}"] = endless
    assert "longer than 33,554,432 bytes" in refused(tmp_path)
    is_mended(hostile, files)


def test_a_transfer_that_breaks_off_is_resumed(hostile, files, tmp_path):
    asked = []

    def half(handler, content):
        asked.append(first := int((handler.headers.get("Range") or "bytes=0-")[6:-1]))
        rest = content[first:]
        headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        part = rest[: len(rest) // 2] if len(asked) < 4 else rest
        send(handler, 206 if first else 200, {**whole(rest), **(headers if first else {})}, part)

    hostile.acts = {f"/{WORDS}": half}
    found = hub_files.listing(REPO)
    assert hub_files.read_blob(found, WORDS).read_bytes() == files[WORDS]
    assert len(asked) == 4 and asked == sorted(set(asked))


@pytest.mark.parametrize("fault", ["content", "range", "length", "200", "416"])
def test_a_transfer_that_is_not_resumed_begins_again(hostile, files, tmp_path, fault):
    """What an earlier transfer left is of no more worth than its hash."""
    found = hub_files.listing(REPO)
    place = hub_files.Place.of(REPO)
    partial = place.partial(found.files[WORDS].digest)
    partial.parent.mkdir(parents=True)
    size = len(files[WORDS])
    partial.write_bytes({"content": b"?" * 9, "length": b"?" * (size + 1)}.get(fault, b"???"))

    def act(handler, content):
        if not handler.headers.get("Range") or fault == "200":
            send(handler, 200, whole(content), content)
        elif fault == "range":
            send(handler, 206, {**whole(content), "Content-Range": "bytes 0-9/10"}, content)
        elif fault == "416":
            send(handler, 416, {"Content-Length": 0})
        else:
            wanted = f"bytes 9-{size - 1}/{size}"
            send(handler, 206, {**whole(content[9:]), "Content-Range": wanted}, content[9:])

    hostile.acts = {f"/{WORDS}": act}
    assert hub_files.read_blob(found, WORDS).read_bytes() == files[WORDS]
    assert not partial.exists()


@pytest.mark.parametrize("encoding", ["gzip", "br", "x\tb", "identity, gzip"])
def test_an_encoded_body_is_not_decoded(hostile, tmp_path, encoding):
    bomb = gzip.compress(bytes(1 << 20))
    headers = {**whole(bomb), "Content-Encoding": encoding}
    for path in (f"models/{REPO}", f"/{WORDS}"):
        hostile.acts = {path: lambda handler, _: send(handler, 200, headers, bomb)}
        assert "expected identity" in refused(tmp_path)


def drip(start: bytes, piece: bytes):
    """Sends a piece each hundredth of a second until the other side leaves."""

    def act(handler, _):
        handler.wfile.write(start)
        with_pause = threading.Event()
        while not with_pause.wait(0.01):
            handler.wfile.write(piece)

    return act


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD, b"x"), (HEAD + b"A: ", b"b"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
        (HEAD + b"Content-Length: 20001\r\n\r\n", b"x"), (HEAD + b"\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)  # fmt: skip
def test_an_answer_that_never_ends(hostile, tmp_path, monkeypatch, start, piece):
    found = hub_files.listing(REPO)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    for limit in ("SMALL_SECONDS", "WINDOW_SECONDS"):
        monkeypatch.setattr(hub_http, limit, 0.2)
    hostile.acts = dict.fromkeys((f"models/{REPO}", f"/{WEIGHTS}"), drip(start, piece))
    words = "took over|came slower|cannot be reached|should be of size"
    with pytest.raises(UnreachableError, match=words):
        hub_files.read_blob(found, WEIGHTS)
    with pytest.raises(UnreachableError, match=words):
        hub_files.listing(REPO)
    refused(tmp_path)


def test_a_file_larger_than_the_disk(hostile, tmp_path, monkeypatch):
    hostile.listed = lambda listing: replaced("lfs.size", 2**40, WEIGHTS)(
        replaced("size", 2**40, WEIGHTS)(listing)
    )
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr("converters.hub_transfer.shutil.disk_usage", lambda _: usage)
    assert "has 1,000,000,000 bytes free; free some, or set HF_HOME" in refused(tmp_path)


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {}, "no such repository, or a private one (401"),
        (403, {}, "answered 403 Forbidden;"),
        (403, {"X-Error-Code": "GatedRepo"}, "a gated repository; ask at"),
        (404, {"X-Error-Code": "EntryNotFound"}, "answered 404 Not Found"),
        (429, {}, "answered 429 Too Many Requests; wait"), (503, {}, "503 Service Unavailable"),
        (418, {}, "answered 418"), (299, {}, "answered 299; expected 200"), (304, {}, "304"),
        (404, {"X-Error-Code": "\xff\x7f"}, "404"), (999, {}, "'999'"),
    ],
)  # fmt: skip
def test_a_status_says_what_to_do(hostile, tmp_path, capsys, status, headers, words):
    body = b"\x1b[2J<html>" * 1000
    for path in (f"models/{REPO}", f"/{WEIGHTS}"):
        act = lambda h, _: send(h, status, {**headers, **whole(body)}, body)  # noqa: E731
        hostile.acts = {path: act}
        assert words in refused(tmp_path)
        assert main(["pretrained", NAME]) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1


@pytest.mark.parametrize("garbage", [b"", b"\0" * 99, b"HTTP/9.9 x\r\n\r\n", b"SSH-2.0-x\r\n",
                                     HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
                                     HEAD + b"A: b\r\n" * 40_000 + b"\r\n"])  # fmt: skip
def test_what_is_no_http(hostile, tmp_path, garbage):
    for path in (f"models/{REPO}", f"/{WEIGHTS}"):
        hostile.acts = {path: lambda handler, _: handler.wfile.write(garbage)}
        assert "cannot be reached (" in refused(tmp_path)


def test_an_older_model_is_enough_where_the_hub_is_out_of_order(hostile, goldens):
    names = (WEIGHTS, "config.json", WORDS)
    hostile.put(REPO, {name: (goldens / "ruclip" / name).read_bytes() for name in names})
    folder = pretrained(NAME)
    hostile.faults[f"models/{REPO}"] = 503
    assert pretrained(NAME) == folder
    hostile.heal()
    hostile.listed = lambda _: b"<html>"
    with pytest.raises(InputError, match="not JSON") as caught:
        pretrained(NAME)
    assert not isinstance(caught.value, UnreachableError)


# -- generated

HOSTILE_TEXT = ["", ".", "..", "/", "{V}", "../../../victim", "C:\\victim", "a\r\nb", "\x00",
                "\x1b]0;x\x07", "x" * 5000, "f" * 39, "f" * 41, "f" * 65, "F" * 40,
                "ё" * 40]  # fmt: skip
OTHER_KINDS = [None, True, -1, 1.5, float("nan"), float("inf"), 10**30, [], [[[]]], {}, {"a": 1}]


def malformation(hub, random: random.Random, victim: str) -> str:
    """Makes the hub answer wrongly in one way, and returns what it is."""
    text = random.choice(HOSTILE_TEXT).replace("{V}", victim)
    value = random.choice([text, random.choice(OTHER_KINDS)])
    file = random.choice([WEIGHTS, WORDS, "config.json"])
    way = random.choice(["listing", "listing", "bytes", "header", "body", "status", "redirect"])
    if way == "listing":
        key = random.choice(["sha", "siblings", "rfilename", "size", "hash", "whole"])
        if key in ("sha", "siblings"):
            hub.listed = replaced(key, value)
        elif key == "whole":
            hub.listed = lambda _: value
        elif key == "hash":
            key = "lfs.sha256" if file == WEIGHTS else "blobId"
            hub.listed = replaced(key, value, file)
            if file == WORDS:
                hub.listed = replaced("lfs", value if value is not None else [], file)
        else:
            hub.listed = replaced(key, value, file)
        return f"listing {key} {value!r} of {file}"
    if way == "bytes":
        place, junk = random.random(), random.randbytes(3) + b"\xff"

        def listed(listing):
            whole = json.dumps(listing).encode()
            at = int(place * (len(whole) - 1))
            return whole[:at] + (junk + whole[at:] if random.random() < 0.5 else b"")

        hub.listed = listed
        return f"listing's bytes at {place}"
    if way == "header":
        name = random.choice(["X-Linked-ETag", "X-Repo-Commit", "X-Linked-Size", "Location"])
        odd = text.replace("\r\n", "").replace("\x00", "\x01").encode().decode("latin-1")
        odd = odd if name != "Location" else random.choice(["file:///x", f"/{odd}", "http://[", ""])
        hub.acts = {f"/{file}": lambda h, c: send(h, 302 if name == "Location" else 200,
                                                  {name: odd, **whole(c)}, c)}  # fmt: skip
        return f"header {name}: {odd!r}"
    if way == "body":
        place, kind = random.random(), random.choice(["flip", "cut", "long", "close", "gzip"])

        def act(handler, content):
            at = int(place * (len(content) - 1))
            flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            body = {"flip": flipped, "cut": content[:at], "long": content + b"\0",
                    "close": flipped[:at], "gzip": gzip.compress(content)}[kind]  # fmt: skip
            headers = whole(content if kind == "close" else body)
            if kind == "gzip":
                headers["Content-Encoding"] = "gzip"
            send(handler, 200, headers, body)

        hub.acts = {f"/{file}": act}
        return f"body {kind} of {file} at {place}"
    path = random.choice([f"/{file}", f"models/{REPO}"])
    if way == "status":
        status = random.choice([201, 204, 206, 300, 304, 400, 401, 403, 404, 416, 451, 500, 599])
        hub.acts = {path: lambda h, c: send(h, status, whole(b"x" * 9), b"x" * 9)}
        return f"status {status} of {path}"
    to = random.choice(["file:///etc/passwd", "ftp://x/", f"{hub.url}/nothing", path, "http://:0/"])
    hub.acts = {path: redirect(to, random.choice([301, 302, 303, 307, 308]))}
    return f"redirect {path} to {to}"


@pytest.mark.parametrize("part", range(10))
def test_generated_malformations(hostile, files, tmp_path, part):
    """Ten of a hundred; each is refused in one line, leaves nothing, and is mended by the truth."""
    for seed in range(part * 10, part * 10 + 10):
        what = malformation(hostile, random.Random(seed), str(tmp_path / "victim"))
        try:
            refused(tmp_path)
        except BaseException as error:
            error.add_note(f"seed {seed}: {what}")
            raise
        is_mended(hostile, files)
        shutil.rmtree(tmp_path / "hub")


def test_it_takes_no_longer_than_the_time_outs(hostile, tmp_path, monkeypatch):
    """A server that takes the connection and says nothing."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hostile.acts = {f"models/{REPO}": lambda handler, _: time.sleep(1)}
    assert "cannot be reached" in refused(tmp_path)
