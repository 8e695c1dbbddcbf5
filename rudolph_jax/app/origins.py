"""Origins of the page, as a browser writes them: scheme, host and port."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from clip_jax.errors import InputError

PORTS = {"http": 80, "https": 443}
_ADDRESS = re.compile(r"(\[[0-9a-f:.]+\]|[0-9.]+)(?::([0-9]{1,5}))?")


class Origins:
    """Matches the Host header with the page's origins.

    host: the address that the server listens on. Loopback has all its names; a wildcard (0.0.0.0,
        ::) this machine's name and any IP address, which a foreign name that resolves to this
        machine (DNS rebinding) is not.
    others: origins of a reverse proxy, such as https://studio.example.
    """

    def __init__(self, host: str, port: int, others: Iterable[str] = ()) -> None:
        names = {host}
        self._port = None
        if is_loopback(host) or _is_wildcard(host):
            names |= {"127.0.0.1", "localhost", "::1"}
        if _is_wildcard(host):
            names |= {socket.gethostname()}
            self._port = port
        origins = {_origin("http", name, port) for name in names}
        origins |= {parse_origin(other) for other in others}
        self._by_host = {origin.partition("://")[2].encode(): origin for origin in origins}

    def match(self, host: bytes) -> str | None:
        """Returns the origin of a request's Host header, or None where it is not the page's."""
        host = host.lower()
        origin = self._by_host.get(host)
        if origin is None and self._port is not None:
            address = _ADDRESS.fullmatch(host.decode("latin-1"))
            if address and int(address[2] or 80) == self._port and _is_address(address[1]):
                return f"http://{address[0]}"
        return origin


def parse_origin(text: str) -> str:
    """Parses an origin and writes it as browsers do; anything else raises InputError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in PORTS or not host or extra or not host.isascii():
        raise InputError(
            f"{text!r} is not an origin; expected only scheme, host and port, as in "
            "https://studio.example"
        )
    return _origin(parts.scheme, host, port or PORTS[parts.scheme])


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _origin(scheme: str, host: str, port: int) -> str:
    """Formats an origin as browsers do: without a default port, in lower case."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name.lower()}" + (f":{port}" if port != PORTS[scheme] else "")
