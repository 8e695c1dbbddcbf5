"""HTTP client for a hub that is not trusted: all that it sends is bounded.

The client of huggingface_hub is used, with its proxies and certificates; redirects, sizes and
times are ours. Limits besides the constants below: HF_HUB_DOWNLOAD_TIMEOUT (10 s by default) for a
connection and between two pieces of a response, three times that until the headers are complete.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

import huggingface_hub
from huggingface_hub import constants

from clip_jax.errors import InputError
from converters.hub_errors import UnreachableError, hub_errors, status_error
from converters.torch_unpickler import safe_repr

MAX_REDIRECTS = 5
MAX_URL = 8192  # characters
BODY_TIMEOUT_SECONDS = 60.0  # for all of a small body
# A transfer that is slower for so long is cut; what came is resumed by the next run.
WINDOW_SECONDS, WINDOW_BYTES = 60.0, 64 << 10

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Response:
    """Hold a response of the hub.

    status: 200 or 206.
    chunks: the body, never decoded.
    hub_headers: the headers of all responses of the hub itself, redirects too: those of a store
        that it redirects to say nothing about the repository.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    hub_headers: tuple[Mapping[str, str], ...] = ()


@contextlib.contextmanager
def http_get(url: str, repo: str, where: str, *, start: int = 0) -> Iterator[Response]:
    """Yield the response to a GET, after redirects.

    start: first byte of the requested range. where: the file in errors.
    The token goes only to the host of the first URL. InputError for a response that is neither a
    success nor a permitted redirect, UnreachableError where another try may help.
    """
    with hub_errors(repo):
        headers = {**_headers(), "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        hub, hub_headers = _origin(url), []
        for _ in range(MAX_REDIRECTS + 1):
            with _exchange(url, headers, where) as response:
                if _origin(url) == hub:
                    hub_headers.append(response.headers)
                if response.status not in _REDIRECTS:
                    _check(response, where, repo)
                    yield replace(response, hub_headers=tuple(hub_headers))
                    return
                target = _target(url, response.headers.get("Location", ""), where)
            if _origin(target) != _origin(url):
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            url = target
        raise InputError(f"{where}: the hub redirects more than {MAX_REDIRECTS} times")


def read_limited_body(response: Response, limit: int, where: str) -> bytes:
    """Return a body of at most `limit` bytes in time; else InputError."""
    until = time.monotonic() + BODY_TIMEOUT_SECONDS
    body = bytearray()
    for chunk in response.chunks:
        body += chunk
        if len(body) > limit:
            raise InputError(f"{where}: the hub's response is longer than {limit:,} bytes")
        if time.monotonic() > until:
            raise UnreachableError(
                f"{where}: the hub's response took over {BODY_TIMEOUT_SECONDS:g} s"
            )
    return bytes(body)


def enforce_min_speed(chunks: Iterator[bytes], where: str) -> Iterator[bytes]:
    """Pass chunks on while WINDOW_BYTES come in each WINDOW_SECONDS; else UnreachableError."""
    since, held = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        held += len(chunk)
        if (now := time.monotonic()) - since >= WINDOW_SECONDS:
            if held < WINDOW_BYTES:
                raise UnreachableError(
                    f"{where}: came slower than {WINDOW_BYTES:,} bytes in {WINDOW_SECONDS:g} s"
                )
            since, held = now, 0


def _headers() -> dict[str, str]:
    """Return User-Agent and authorization.

    huggingface_hub's `build_hf_headers` would request a list of agents from the hub first.
    """
    from huggingface_hub import get_token  # it imports a client of HTTP

    headers = {"User-Agent": f"rudolph-jax; hf_hub/{huggingface_hub.__version__}"}
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    if token:
        if not re.fullmatch(r"[!-~]+", token):
            raise InputError("HF_TOKEN holds characters that no token has; copy it again")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _check(response: Response, where: str, repo: str) -> None:
    if response.status not in (200, 206):
        raise status_error(response.status, response.headers, where, repo)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() not in ("identity", ""):
        raise InputError(
            f"{where}: the hub sent it with the encoding {safe_repr(encoding)}, unrequested; "
            "expected "
            "identity"
        )


def _target(url: str, location: str, where: str) -> str:
    """Return the target of a redirect; InputError unless to http(s), or from https to http."""
    try:
        target = urljoin(url, location)
        split = urlsplit(target)
        plain = bool(split.hostname) and (split.port is None or split.port > 0)
        plain = plain and split.username is None and split.password is None
    except ValueError:
        plain = False
    schemes = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    if not location or not plain or len(target) > MAX_URL or split.scheme not in schemes:
        raise InputError(
            f"{where}: the hub redirects to {safe_repr(location)}; expected an address by "
            f"{' or '.join(schemes)}"
        )
    return target


def _origin(url: str) -> tuple[str, str | None, int]:
    split = urlsplit(url)
    return split.scheme, split.hostname, split.port or {"http": 80, "https": 443}[split.scheme]


@contextlib.contextmanager
def _exchange(url: str, headers: Mapping[str, str], where: str) -> Iterator[Response]:
    """Make one request, in a thread.

    A server can send headers and the frames of a chunked body byte by byte, for days, without
    missing the client's time-out for a single read; a queue's reader can stop waiting at any time.
    """
    idle = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    arrived: queue.Queue[Any] = queue.Queue(maxsize=16)
    left = threading.Event()
    arguments = (url, headers, idle, arrived, left)
    threading.Thread(target=_work, args=arguments, daemon=True, name="hub").start()

    def get(seconds: float, what: str) -> Any:
        try:
            found = arrived.get(timeout=seconds)
        except queue.Empty:
            hub = constants.ENDPOINT
            raise UnreachableError(
                f"{where}: {hub} cannot be reached ({what} took over {seconds:g} s)"
            ) from None
        if isinstance(found, BaseException):
            raise found
        return found

    def chunks() -> Iterator[bytes]:
        while (chunk := get(2 * idle, "a piece of its response")) is not None:
            yield chunk

    try:
        response = get(3 * idle, "its headers")
        yield Response(response.status_code, response.headers, chunks())
    finally:
        left.set()


def _work(
    url: str,
    headers: Mapping[str, str],
    idle: float,
    arrived: queue.Queue[Any],
    left: threading.Event,
) -> None:
    """Put the response, the chunks of its body, then None into a queue; or an error."""

    def put(item: Any) -> bool:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                arrived.put(item, timeout=0.2)
                return True
        return False

    from huggingface_hub.utils import get_session

    try:
        with get_session().stream(
            "GET", url, headers=headers, timeout=idle, follow_redirects=False
        ) as response:
            if put(response) and all(put(chunk) for chunk in response.iter_raw()):
                put(None)
    except BaseException as error:  # raised by who waits for the queue
        put(error)
