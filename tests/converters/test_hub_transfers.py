"""Wrong transfers: redirects, bodies that never end, ranges, encodings."""

import gzip
import threading
import time
from types import SimpleNamespace

import pytest
from hostile_hub import (
    FILES,
    HEAD,
    REPO,
    WEIGHTS,
    WORDS,
    is_mended,
    redirect,
    refused,
    replaced,
    send,
    whole,
)
from huggingface_hub import constants

from clip_jax import InputError
from converters import hub_files, hub_http
from converters.hub_errors import UnreachableError


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


def test_the_token_goes_to_the_hub_alone(hostile):
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
    hub_files.fetch_listing(REPO)
    token = "Bearer hf_loopback"
    assert [authorization for _, authorization in sent] == [token, token, None, None]


def test_a_token_that_no_header_holds(hostile, tmp_path, monkeypatch):
    for token in ("hf_ключ", "hf_a b", "hf_a\nX: y"):
        monkeypatch.setenv("HF_TOKEN", token)
        line = refused(tmp_path)
        assert "HF_TOKEN holds characters that no token has" in line and token not in line
    assert hostile.log == []


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def endless(handler, _):
    send(handler, 200, {"Transfer-Encoding": "chunked"}, *[chunk(b"x" * 65536)] * 10_000)


def test_more_or_less_than_announced(hostile, tmp_path):
    acts = hostile.acts
    acts[f"/{WORDS}"] = lambda h, c: send(h, 200, whole(c + b"!"), c, b"!")
    assert "it should be of size" in refused(tmp_path)
    acts[f"/{WORDS}"] = endless
    assert f"sends more than the {len(FILES[WORDS]):,} bytes" in refused(tmp_path)
    acts[f"/{WORDS}"] = lambda h, c: send(h, 200, {}, c, b"!")  # until the connection is closed
    assert "sends more than" in refused(tmp_path)
    acts[f"/{WORDS}"] = lambda h, c: send(h, 200, {}, c[:-1])
    assert f"ended after {len(FILES[WORDS]) - 1:,} bytes" in refused(tmp_path)
    acts.clear()
    acts[f"models/{REPO}"] = endless
    assert "longer than 33,554,432 bytes" in refused(tmp_path)
    is_mended(hostile)


def test_a_transfer_that_breaks_off_is_resumed(hostile, tmp_path):
    asked = []

    def half(handler, content):
        asked.append(first := int((handler.headers.get("Range") or "bytes=0-")[6:-1]))
        rest = content[first:]
        headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        part = rest[: len(rest) // 2] if len(asked) < 4 else rest
        send(handler, 206 if first else 200, {**whole(rest), **(headers if first else {})}, part)

    hostile.acts = {f"/{WORDS}": half}
    found = hub_files.fetch_listing(REPO)
    assert hub_files.read_blob(found, WORDS).read_bytes() == FILES[WORDS]
    assert len(asked) == 4 and asked == sorted(set(asked))


@pytest.mark.parametrize("fault", ["content", "range", "length", "200", "416"])
def test_a_transfer_that_is_not_resumed_begins_again(hostile, tmp_path, fault):
    """The rest of an earlier transfer is used only if its hash is right."""
    found = hub_files.fetch_listing(REPO)
    place = hub_files.RepoCache.for_repo(REPO)
    partial = place.partial(found.files[WORDS].digest)
    partial.parent.mkdir(parents=True)
    size = len(FILES[WORDS])
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
    assert hub_files.read_blob(found, WORDS).read_bytes() == FILES[WORDS]
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
    found = hub_files.fetch_listing(REPO)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    for limit in ("BODY_TIMEOUT_SECONDS", "WINDOW_SECONDS"):
        monkeypatch.setattr(hub_http, limit, 0.2)
    hostile.acts = dict.fromkeys((f"models/{REPO}", f"/{WEIGHTS}"), drip(start, piece))
    words = "took over|came slower|cannot be reached|should be of size"
    with pytest.raises(UnreachableError, match=words):
        hub_files.read_blob(found, WEIGHTS)
    with pytest.raises(UnreachableError, match=words):
        hub_files.fetch_listing(REPO)
    refused(tmp_path)


def test_a_file_larger_than_the_disk(hostile, tmp_path, monkeypatch):
    hostile.listed = lambda listing: replaced("lfs.size", 2**40, WEIGHTS)(
        replaced("size", 2**40, WEIGHTS)(listing)
    )
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr("converters.hub_transfer.shutil.disk_usage", lambda _: usage)
    assert "has 1,000,000,000 bytes free; free some, or set HF_HOME" in refused(tmp_path)


def test_it_takes_no_longer_than_the_time_outs(hostile, tmp_path, monkeypatch):
    """A server that takes the connection and says nothing."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hostile.acts = {f"models/{REPO}": lambda handler, _: time.sleep(1)}
    assert "cannot be reached" in refused(tmp_path)
