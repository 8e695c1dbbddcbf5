"""Checks requests before they reach the page: ASGI middleware outermost, around all of gradio.

Gradio serves far more than this page needs: a schema, monitoring, a proxy, reloading, addresses
that a client names. Only what the page's own scripts ask for is passed on, under the page's own
names, from the page itself, with bodies that are bounded (`bodies.py`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from rudolph_jax.app.bodies import Body, Bounds, Ledger, Refusal
from rudolph_jax.app.origins import Origins

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

API = "/gradio_api"
JOIN, UPLOAD, FILE = f"{API}/queue/join", f"{API}/upload", f"{API}/file="
_NAME = r"(?!\.)[\w.@+-]+"
# What gradio's scripts ask for on this page, found with `make test-browser`.
STREAMS = re.compile(rf"{API}/(heartbeat/[\w-]+|queue/data|upload_progress)")
READ = re.compile(
    rf"/|/config|(?:{API})?/theme\.css|/favicon\.ico|{re.escape(FILE)}/.+"
    rf"|/(?:assets|static|svelte)(?:/{_NAME})+"
)
WRITTEN = re.compile(rf"{API}/(queue/join|upload|cancel|run/{_NAME})")
QUERIED = (f"{API}/queue/data", f"{API}/upload_progress", UPLOAD)
ONCE = (b"host", b"origin", b"content-length", b"content-type", b"sec-fetch-site")
PICTURES = {b"image/png", b"image/jpeg", b"image/webp", b"image/gif"}

# gradio's own page holds inline scripts and styles, and makes functions of its templates.
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


class Guard:
    """Passes on what the page needs; everything else is answered here, in one line of text.

    app: gradio's. origins: under which the page is known. folder: where the files lie that it
    serves. clock: seconds; a test's own.
    """

    def __init__(
        self,
        app: App,
        origins: Origins,
        folder: str | Path,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.origins = origins
        self.folder = Path(folder).resolve()
        self.bounds = bounds
        self.uploads = Ledger(bounds, clock)
        self.streams = self.requests = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # this page has no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            body = self._admit(scope)
        except Refusal as refusal:
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

    async def _pass(self, scope: Message, receive: Receive, send: Send, body: Body) -> None:
        begun = refused = False

        async def bounded() -> Message:
            nonlocal begun, refused
            if refused:
                return {"type": "http.disconnect"}
            try:
                return await body.receive(receive)
            except Refusal as refusal:
                refused = True
                if not begun:
                    begun = True
                    await _refuse(send, refusal)
                return {"type": "http.disconnect"}

        async def headed(message: Message) -> None:
            nonlocal begun
            if refused:
                return
            if message["type"] == "http.response.start":
                begun = True
                headers = _headers(message.get("headers", ()), scope["path"])
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, bounded, headed)
        except Exception:  # the app's own, of whatever type; raised again
            if not refused:  # otherwise it says that the body has no end
                raise

    def _admit(self, scope: Message) -> Body:
        """The body that may follow; changes the scope to what gradio may know of it."""
        headers = _once(scope["headers"])
        origin = self.origins.of(headers.get(b"host", b""))
        if origin is None:
            raise Refusal(403, "this host is not served here; see --host and --origin")
        method, path = scope["method"], scope["path"]
        _check_site(headers, origin, navigates=method in ("GET", "HEAD") and path == "/")
        if not self._known(method, path):
            raise Refusal(404, "not found")
        if path.startswith(FILE) and not self._is_served(path.removeprefix(FILE)):
            raise Refusal(403, "this file is not served")
        stream = STREAMS.fullmatch(path) is not None
        if stream and self.streams >= self.bounds.streams:
            raise Refusal(503, f"{self.streams} pages are open, as many as may be; try later")
        if not stream and self.requests >= self.bounds.requests:
            raise Refusal(503, f"{self.requests} requests are at work, as many as may be")
        body = Body.of(headers, self.bounds, self.uploads if path == UPLOAD else None, method)
        # Names of a proxy, which anyone can send: gradio would believe them.
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if not name.startswith(b"x-forwarded") and name not in (b"forwarded", b"x-real-ip")
        ]
        scope["scheme"] = origin.partition(":")[0]
        if path not in QUERIED:  # a shared state to load, a theme of another's
            scope["query_string"] = b""
        return body

    def _known(self, method: str, path: str) -> bool:
        if method == "POST":
            return WRITTEN.fullmatch(path) is not None
        if method == "GET" and STREAMS.fullmatch(path):
            return True
        return method in ("GET", "HEAD") and READ.fullmatch(path) is not None

    def _is_served(self, name: str) -> bool:
        if "\0" in name or len(name) > 1000:
            return False
        return self.folder in Path(name).resolve().parents


def _once(headers: Any) -> Mapping[bytes, bytes]:
    """Headers by name; none that decides here may be there twice."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in ONCE and name in found:
            raise Refusal(400, f"{name.decode()} is given twice")
        found[name] = value
    return found


def _check_site(headers: Mapping[bytes, bytes], own: str, navigates: bool) -> None:
    """Refuses what another site's page sends or embeds; a link to the page itself is followed.

    Programs that are no browsers send neither header.
    """
    if headers.get(b"origin", own.encode()) != own.encode():
        raise Refusal(403, "another site's page asks; only this page's own may")
    if headers.get(b"sec-fetch-site", b"none") in (b"same-origin", b"none"):
        return
    how = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    if not (navigates and how == (b"navigate", b"document")):
        raise Refusal(403, "another site's page asks; only this page's own may")


def _headers(found: Any, path: str) -> list[tuple[bytes, bytes]]:
    """An answer's headers with HEADERS; files that are no images can only be downloaded."""
    kept = [
        (name.lower(), value)
        for name, value in found
        if name.lower() not in HEADERS and not name.lower().startswith(b"access-control-")
    ]
    own = dict(HEADERS)
    if path.startswith(FILE):
        own[b"content-security-policy"] = FILE_POLICY.encode()
        about = dict(kept)
        if about.get(b"content-type", b"").partition(b";")[0].strip() not in PICTURES:
            kept = [pair for pair in kept if pair[0] not in (b"content-type",)]
            kept.append((b"content-type", b"application/octet-stream"))
            if not about.get(b"content-disposition", b"").startswith(b"attachment"):
                kept = [pair for pair in kept if pair[0] != b"content-disposition"]
                kept.append((b"content-disposition", b"attachment"))
    return [*kept, *own.items()]


async def _refuse(send: Send, refusal: Refusal) -> None:
    text = f"{refusal}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        # What else of the body is on its way is not read.
        (b"connection", b"close"),
        (b"cache-control", b"no-store"),
        *([(b"retry-after", b"5")] if refusal.status in (429, 503) else []),
        *HEADERS.items(),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
