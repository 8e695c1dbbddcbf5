"""ASGI middleware around all of gradio: an allow-list of requests, size limits, response headers.

Gradio serves far more than this page needs: a schema, monitoring, a proxy, reloading, URLs that a
client names. Only requests of the page's own scripts pass, to the page's own hosts, from its own
origin, with bounded bodies (`request_body.py`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from rudolph_jax.app.origins import Origins
from rudolph_jax.app.request_body import BoundedBody, RequestLimits, RequestRefused, UploadQuota

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api"
JOIN, UPLOAD, FILE = f"{API}/queue/join", f"{API}/upload", f"{API}/file="
_NAME = r"(?!\.)[\w.@+-]+"
# Requests of gradio's scripts on this page, found with `make test-browser`.
STREAMS = re.compile(rf"{API}/(heartbeat/[\w-]+|queue/data|upload_progress)")
READ = re.compile(
    rf"/|/config|(?:{API})?/theme\.css|/favicon\.ico|{re.escape(FILE)}/.+"
    rf"|/(?:assets|static|svelte)(?:/{_NAME})+"
)
WRITTEN = re.compile(rf"{API}/(queue/join|upload|cancel|run/{_NAME})")
QUERIED = (f"{API}/queue/data", f"{API}/upload_progress", UPLOAD)
UNIQUE_HEADERS = (b"host", b"origin", b"content-length", b"content-type", b"sec-fetch-site")
IMAGE_TYPES = {b"image/png", b"image/jpeg", b"image/webp", b"image/gif"}

# gradio's own page has inline scripts and styles, and evaluates its templates.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


class SecurityMiddleware:
    """Passes on requests that the page needs; others are answered with one line of text.

    app: gradio's.
    origins: of the page.
    folder: the only one whose files are served.
    clock: seconds, for tests.
    """

    def __init__(
        self,
        app: App,
        origins: Origins,
        folder: str | Path,
        limits: RequestLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.origins = origins
        self.folder = Path(folder).resolve()
        self.limits = limits
        self.uploads = UploadQuota(limits, clock)
        self.streams = self.requests = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # this page has no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            body = self._check_request(scope)
        except RequestRefused as refusal:
            await _refuse(send, refusal)
            return
        stream = STREAMS.fullmatch(scope["path"]) is not None
        self.streams += stream
        self.requests += not stream
        try:
            await self._pass(scope, receive, send, body)
        finally:
            self.streams -= stream
            self.requests -= not stream

    async def _pass(self, scope: Message, receive: Receive, send: Send, body: BoundedBody) -> None:
        started = refused = False

        async def receive_bounded() -> Message:
            nonlocal started, refused
            if refused:
                return {"type": "http.disconnect"}
            try:
                return await body.receive(receive)
            except RequestRefused as refusal:
                refused = True
                if not started:
                    started = True
                    await _refuse(send, refusal)
                return {"type": "http.disconnect"}

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if refused:
                return
            if message["type"] == "http.response.start":
                started = True
                headers = _response_headers(message.get("headers", ()), scope["path"])
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive_bounded, send_with_headers)
        except Exception:  # any of the app's; raised again
            if not refused:  # after a refusal the app fails on the unfinished body
                raise

    def _check_request(self, scope: Message) -> BoundedBody:
        """Returns the body; removes from the scope what gradio must not see."""
        headers = _unique_headers(scope["headers"])
        origin = self.origins.match(headers.get(b"host", b""))
        if origin is None:
            raise RequestRefused(403, "this host is not served here; see --host and --origin")
        method, path = scope["method"], scope["path"]
        _check_site(headers, origin, is_navigation=method in ("GET", "HEAD") and path == "/")
        if not self._is_allowed(method, path):
            raise RequestRefused(404, "not found")
        if path.startswith(FILE) and not self._is_served(path.removeprefix(FILE)):
            raise RequestRefused(403, "this file is not served")
        stream = STREAMS.fullmatch(path) is not None
        if stream and self.streams >= self.limits.streams:
            raise RequestRefused(
                503, f"{self.streams} pages are open, which is the limit; try later"
            )
        if not stream and self.requests >= self.limits.requests:
            raise RequestRefused(503, f"{self.requests} requests are running, which is the limit")
        body = BoundedBody.from_headers(
            headers, self.limits, self.uploads if path == UPLOAD else None, method
        )
        # Forwarding headers, which anyone can send: gradio would trust them.
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if not name.startswith(b"x-forwarded") and name not in (b"forwarded", b"x-real-ip")
        ]
        scope["scheme"] = origin.partition(":")[0]
        if path not in QUERIED:  # a deep link to load a state, a theme of another site
            scope["query_string"] = b""
        return body

    def _is_allowed(self, method: str, path: str) -> bool:
        if method == "POST":
            return WRITTEN.fullmatch(path) is not None
        if method == "GET" and STREAMS.fullmatch(path):
            return True
        return method in ("GET", "HEAD") and READ.fullmatch(path) is not None

    def _is_served(self, name: str) -> bool:
        if "\0" in name or len(name) > 1000:
            return False
        return self.folder in Path(name).resolve().parents


def _unique_headers(headers: Any) -> Mapping[bytes, bytes]:
    """Returns headers by name; those that are checked here must be unique."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in UNIQUE_HEADERS and name in found:
            raise RequestRefused(400, f"{name.decode()} is given twice")
        found[name] = value
    return found


def _check_site(headers: Mapping[bytes, bytes], own: str, is_navigation: bool) -> None:
    """Refuses requests and embeddings of other sites, but not links to the page itself.

    Clients that are no browsers send neither header.
    """
    if headers.get(b"origin", own.encode()) != own.encode():
        raise RequestRefused(
            403, "the request comes from another site; only this page's own are allowed"
        )
    if headers.get(b"sec-fetch-site", b"none") in (b"same-origin", b"none"):
        return
    fetch = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    if not (is_navigation and fetch == (b"navigate", b"document")):
        raise RequestRefused(
            403, "the request comes from another site; only this page's own are allowed"
        )


def _response_headers(headers: Any, path: str) -> list[tuple[bytes, bytes]]:
    """Returns a response's headers with HEADERS; files that are no images are attachments."""
    kept = [
        (name.lower(), value)
        for name, value in headers
        if name.lower() not in HEADERS and not name.lower().startswith(b"access-control-")
    ]
    own = dict(HEADERS)
    if path.startswith(FILE):
        own[b"content-security-policy"] = FILE_POLICY.encode()
        by_name = dict(kept)
        if by_name.get(b"content-type", b"").partition(b";")[0].strip() not in IMAGE_TYPES:
            kept = [pair for pair in kept if pair[0] not in (b"content-type",)]
            kept.append((b"content-type", b"application/octet-stream"))
            if not by_name.get(b"content-disposition", b"").startswith(b"attachment"):
                kept = [pair for pair in kept if pair[0] != b"content-disposition"]
                kept.append((b"content-disposition", b"attachment"))
    return [*kept, *own.items()]


async def _refuse(send: Send, refusal: RequestRefused) -> None:
    text = f"{refusal}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        # The rest of the body is not read.
        (b"connection", b"close"),
        (b"cache-control", b"no-store"),
        *([(b"retry-after", b"5")] if refusal.status in (429, 503) else []),
        *HEADERS.items(),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
