"""Request bodies, bounded in size, parts and time, each and all together."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
_MULTIPART = re.compile(rb'multipart/form-data; ?boundary=("?)([\w.+-]{1,70})\1')
FORM_OVERHEAD = 64 * 1024  # bytes of a form besides its file
MAX_FILES = 1  # of one upload


class RequestRefused(Exception):
    """Request that is answered with an HTTP error. status: of HTTP. The text is the response's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """Limits of requests.

    json_bytes, upload_bytes: of one body.
    uploads, uploads_bytes: number and size of the uploads within the last `remembered` seconds,
        after which their files are deleted.
    requests, streams: open at once; a stream is a page that waits for events.
    idle, seconds: longest pause and duration of a body.
    """

    json_bytes: int = 1 << 20
    upload_bytes: int = 20 << 20
    uploads: int = 2000
    uploads_bytes: int = 1 << 30
    remembered: float = 7200
    requests: int = 64
    streams: int = 256
    idle: float = 10
    seconds: float = 120


class UploadQuota:
    """Counts recent uploads and their bytes."""

    def __init__(self, limits: RequestLimits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._entries: collections.deque[tuple[float, int]] = collections.deque()
        self._bytes = 0

    def add(self, size: int, new_upload: bool) -> None:
        """Counts bytes of a new upload or of the last one; too many raise RequestRefused."""
        now = self._clock()
        while self._entries and now - self._entries[0][0] > self._limits.remembered:
            self._bytes -= self._entries.popleft()[1]
        if new_upload and len(self._entries) >= self._limits.uploads:
            raise RequestRefused(
                429, f"{len(self._entries)} files were uploaded recently; try later"
            )
        if self._bytes + size > self._limits.uploads_bytes:
            raise RequestRefused(
                429, f"{self._bytes >> 20} MB were uploaded recently, which is the limit; try later"
            )
        self._bytes += size
        if not new_upload and self._entries:
            time, previous = self._entries.pop()
            self._entries.append((time, previous + size))
        else:
            self._entries.append((now, size))


class BoundedBody:
    """Request body that is counted while it is read."""

    def __init__(self, max_bytes: int, content_length: int | None, limits: RequestLimits) -> None:
        self._max_bytes, self._content_length, self._limits = max_bytes, content_length, limits
        self._read = 0
        self._deadline: float | None = None
        self._quota: UploadQuota | None = None
        self._boundary = self._tail = b""
        self._delimiters = 0

    @classmethod
    def from_headers(
        cls,
        headers: Mapping[bytes, bytes],
        limits: RequestLimits,
        uploads: UploadQuota | None,
        method: str,
    ) -> BoundedBody:
        """Checks the headers; raises RequestRefused before the body is read."""
        content_length = _content_length(headers)
        if method != "POST":
            return cls(0, content_length or 0, limits)._check_length()
        content_type = headers.get(b"content-type", b"")
        if uploads is None:
            if content_type.partition(b";")[0].strip().lower() != b"application/json":
                raise RequestRefused(415, "expected application/json")
            return cls(limits.json_bytes, content_length, limits)._check_length()
        form = _MULTIPART.fullmatch(content_type)
        if form is None:
            raise RequestRefused(415, "expected multipart/form-data with a plain boundary")
        body = cls(limits.upload_bytes + FORM_OVERHEAD, content_length, limits)._check_length()
        uploads.add(content_length or 0, new_upload=True)
        body._quota = uploads
        body._boundary = b"--" + form[2]
        return body

    async def receive(self, receive: Callable[[], Awaitable[Message]]) -> Message:
        """Returns the next message; after the body, waits for the client to disconnect."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._limits.seconds
        if self._deadline == float("inf"):
            return await receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(receive(), max(0, min(left, self._limits.idle)))
        except TimeoutError as error:
            raise RequestRefused(408, "the body is sent too slowly") from error
        if message["type"] != "http.request":
            return message
        self._count(message.get("body", b""))
        if not message.get("more_body"):
            self._deadline = float("inf")
        return message

    def _count(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > self._max_bytes:
            raise RequestRefused(413, _too_large(self._max_bytes))
        if self._quota is not None and self._content_length is None:
            self._quota.add(len(data), new_upload=False)
        if self._boundary:
            chunk = self._tail + data
            self._delimiters += chunk.count(self._boundary)
            # The tail may begin a delimiter; a whole one is never counted twice.
            self._tail = chunk[-len(self._boundary) + 1 :]
            if self._delimiters > MAX_FILES + 1:
                raise RequestRefused(
                    413, f"the form has more than {MAX_FILES} part; expected one file"
                )

    def _check_length(self) -> BoundedBody:
        if (self._content_length or 0) > self._max_bytes:
            raise RequestRefused(413, _too_large(self._max_bytes))
        return self


def _content_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Returns the announced bytes, or None for a chunked body."""
    if b"transfer-encoding" in headers:
        return None
    text = headers.get(b"content-length", b"0")
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise RequestRefused(400, "Content-Length is not a number")
    return int(text)


def _too_large(max_bytes: int) -> str:
    return (
        f"the body is too large; expected {max_bytes} bytes at most"
        if max_bytes
        else "expected no body"
    )
