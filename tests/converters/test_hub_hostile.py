"""Wrong listings, headers and links end in one line and touch nothing of the user's."""

import itertools
import json

import pytest
from hostile_hub import (
    FILES,
    HEAD,
    NAME,
    REPO,
    WEIGHTS,
    WORDS,
    is_mended,
    outside,
    refused,
    replaced,
    send,
    whole,
)

from clip_jax import InputError
from converters import hub_files, hub_names, pretrained
from converters.__main__ import main
from converters.hub_errors import UnreachableError


@pytest.mark.parametrize("header", ["X-Linked-ETag", "ETag"])
@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
@pytest.mark.parametrize("there", [True, False])
def test_an_etag_that_is_a_path(hostile, tmp_path, header, file, there):
    victim = tmp_path / ("victim" if there else "home/created")
    headers = {header: f'"{victim}"', "X-Linked-Size": str(len(FILES[file]))}
    hostile.acts[f"/{file}"] = lambda h, c: send(h, 200, {**headers, **whole(c)}, c)
    line = refused(tmp_path)
    assert f"{file}: the hub names the hash '{victim}'; expected 40 or 64 hexadecimal" in line
    is_mended(hostile)


def test_the_etag_of_a_redirect_is_nobodys(hostile):
    hostile.named["ETag"] = 'W/"302 by nginx"'
    found = hub_files.fetch_listing(REPO)
    assert hub_files.read_blob(found, WEIGHTS).read_bytes() == FILES[WEIGHTS]


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
    assert "is not the name of a file next to it" in refused(tmp_path, "some/clip")


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
    digest = hub_files.fetch_listing(REPO).files[WEIGHTS].digest
    blob = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs" / (digest + end)
    blob.parent.mkdir(parents=True)
    for target in ("victim", "home/created"):
        blob.symlink_to(tmp_path / target)
        before = outside(tmp_path)
        with pytest.raises(InputError, match="out of the cache .*; remove the link"):
            pretrained(NAME)
        assert outside(tmp_path) == before
        blob.unlink()


def test_damage_is_removed_in_the_cache_alone(hostile, tmp_path):
    """A snapshot's link may lead to another place in the cache, which stays."""
    found = hub_files.fetch_listing(REPO)
    other = tmp_path / "hub" / "models--a--b" / "blobs" / "mine"
    pointer = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "snapshots" / found.commit
    for folder in (other.parent, pointer):
        folder.mkdir(parents=True)
    other.write_bytes(b"x" * len(FILES[WEIGHTS]))
    (pointer / WEIGHTS).symlink_to(other)
    with pytest.raises(InputError, match="has the hash .*; it is removed"):
        hub_files.read_blob(found, WEIGHTS)
    assert other.exists() and not (pointer / WEIGHTS).is_symlink()
    is_mended(hostile)


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


@pytest.mark.parametrize("size", [True, False, 1.0, -1, 2**40 + 1])
def test_no_size(size):
    assert hub_names.read_size(2**40, "x") == 2**40 and hub_names.read_size(0, "x") == 0
    with pytest.raises(InputError, match="x: the hub names the size .*; expected 0 to"):
        hub_names.read_size(size, "x")
