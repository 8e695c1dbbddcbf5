"""Bodies of requests, bounded in size, parts, time, and in what all of them together have."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
_MULTIPART = re.compile(rb'multipart/form-data; ?boundary=("?)([\w.+-]{1,70})\1')
PART_BYTES = 64 * 1024  # what a form has beside its file
PARTS = 1  # files of one upload


class Refusal(Exception):
    """status: of HTTP. The text is the answer's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Bounds:
    """json_bytes, upload_bytes: of one body. uploads, uploads_bytes: number and size of those
    within the last `remembered` seconds, for so long their files may lie on the disk. requests,
    streams: open at once; a stream is a page that waits for news. idle, seconds: that a body may
    pause and last."""

    json_bytes: int = 1 << 20
    upload_bytes: int = 20 << 20
    uploads: int = 2000
    uploads_bytes: int = 1 << 30
    remembered: float = 7200
    requests: int = 64
    streams: int = 256
    idle: float = 10
    seconds: float = 120


class Ledger:
    """Uploads of the last while."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._bounds, self._clock = bounds, clock
        self._entries: collections.deque[tuple[float, int]] = collections.deque()
        self._bytes = 0

    def add(self, size: int, begins: bool) -> None:
        """Counts bytes of an upload, which `begins` or goes on; Refusal where they are too many."""
        now = self._clock()
        while self._entries and now - self._entries[0][0] > self._bounds.remembered:
            self._bytes -= self._entries.popleft()[1]
        if begins and len(self._entries) >= self._bounds.uploads:
            raise Refusal(429, f"{len(self._entries)} files were uploaded of late; try later")
        if self._bytes + size > self._bounds.uploads_bytes:
            raise Refusal(
                429, f"{self._bytes >> 20} MB were uploaded of late, as many as may be; try later"
            )
        self._bytes += size
        if not begins and self._entries:
            moment, before = self._entries.pop()
            self._entries.append((moment, before + size))
        else:
            self._entries.append((now, size))


class Body:
    """One request's body, counted while it is read."""

    def __init__(self, most: int, announced: int | None, bounds: Bounds) -> None:
        self._most, self._announced, self._bounds = most, announced, bounds
        self._read = 0
        self._deadline: float | None = None
        self._ledger: Ledger | None = None
        self._boundary = self._tail = b""
        self._delimiters = 0

    @classmethod
    def of(
        cls, headers: Mapping[bytes, bytes], bounds: Bounds, uploads: Ledger | None, method: str
    ) -> Body:
        """Judges the headers; Refusal before anything of the body is read."""
        announced = _length(headers)
        if method != "POST":
            return cls(0, announced or 0, bounds)._checked()
        kind = headers.get(b"content-type", b"")
        if uploads is None:
            if kind.partition(b";")[0].strip().lower() != b"application/json":
                raise Refusal(415, "expected application/json")
            return cls(bounds.json_bytes, announced, bounds)._checked()
        form = _MULTIPART.fullmatch(kind)
        if form is None:
            raise Refusal(415, "expected multipart/form-data with a plain boundary")
        body = cls(bounds.upload_bytes + PART_BYTES, announced, bounds)._checked()
        uploads.add(announced or 0, begins=True)
        body._ledger = uploads
        body._boundary = b"--" + form[2]
        return body

    async def receive(self, receive: Callable[[], Awaitable[Message]]) -> Message:
        """The next message; once the body is whole, this waits for the client to leave."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._bounds.seconds
        if self._deadline == float("inf"):
            return await receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(receive(), max(0, min(left, self._bounds.idle)))
        except TimeoutError as error:
            raise Refusal(408, "the body comes too slowly") from error
        if message["type"] != "http.request":
            return message
        self._count(message.get("body", b""))
        if not message.get("more_body"):
            self._deadline = float("inf")
        return message

    def _count(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > self._most:
            raise Refusal(413, _too_large(self._most))
        if self._ledger is not None and self._announced is None:
            self._ledger.add(len(data), begins=False)
        if self._boundary:
            window = self._tail + data
            self._delimiters += window.count(self._boundary)
            # What may be the beginning of one; a whole one is never counted twice.
            self._tail = window[-len(self._boundary) + 1 :]
            if self._delimiters > PARTS + 1:
                raise Refusal(413, f"the form has more than {PARTS} part; expected one file")

    def _checked(self) -> Body:
        if (self._announced or 0) > self._most:
            raise Refusal(413, _too_large(self._most))
        return self


def _length(headers: Mapping[bytes, bytes]) -> int | None:
    """Bytes that are announced; None: the body comes in chunks, until it ends."""
    if b"transfer-encoding" in headers:
        return None
    text = headers.get(b"content-length", b"0")
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise Refusal(400, "Content-Length is no number")
    return int(text)


def _too_large(most: int) -> str:
    return f"the body is too large; expected {most} bytes at most" if most else "expected no body"
