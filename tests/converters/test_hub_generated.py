"""A hundred ways in which a hub is wrong."""

import gzip
import json
import random
import shutil

import pytest
from hostile_hub import REPO, WEIGHTS, WORDS, is_mended, redirect, refused, replaced, send, whole

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
def test_generated_malformations(hostile, tmp_path, part):
    """Ten of a hundred; each is refused in one line, leaves nothing, and is mended by the truth."""
    for seed in range(part * 10, part * 10 + 10):
        what = malformation(hostile, random.Random(seed), str(tmp_path / "victim"))
        try:
            refused(tmp_path)
        except BaseException as error:
            error.add_note(f"seed {seed}: {what}")
            raise
        is_mended(hostile)
        shutil.rmtree(tmp_path / "hub")
