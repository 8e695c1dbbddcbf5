"""The page served: one process, one queue, loopback unless asked otherwise, no other network."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from clip_jax.errors import InputError
from rudolph_jax.app.page import STYLE, build_page, theme
from rudolph_jax.app.studio import Studio

PORT = 7860
# What the page is made of comes from this server alone; gradio's own page names other places.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def serve(studio: Studio, host: str = "127.0.0.1", port: int = PORT) -> None:
    """Prints where the page is, and serves it until the process is interrupted.

    port: 0: any free one. One that is taken, or a host that is not this machine's, raises
    InputError.
    """
    check_gradio()
    port = _free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="rudolph-page-") as folder:
        _keep_to_this_machine(host, folder)
        page = build_page(studio)
        page.launch(
            server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
            max_file_size=studio.limits.upload_bytes, theme=theme(), css=STYLE,
            footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, pwa=False,
            app_kwargs={"middleware": _middleware(host)},
        )  # fmt: skip
        print(f"the page: {_url(host, port)} (Ctrl-C ends it)", flush=True)
        if not is_loopback(host):
            print("anyone who can reach this machine can use it", flush=True)
        # Told to end by another process, it tidies up as well.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            page.close(verbose=False)


def check_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError(
            "the page needs gradio, which is not installed: pip install 'rudolph-jax[app]'"
        ) from error


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: adds POLICY to every answer.

    names: hosts that a request may name, lest another site's name be pointed at this machine
    (DNS rebinding); empty: any.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], names: frozenset[str]) -> None:
        self.app = app
        self.names = names

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.names and _host_of(scope) not in self.names:
            text = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": text})
            await send({"type": "http.response.body", "body": b"this host is not served"})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        await self.app(scope, receive, guarded)


def _middleware(host: str) -> list[Any]:
    from fastapi.middleware import Middleware

    names = frozenset({"127.0.0.1", "localhost", "::1", host} if is_loopback(host) else ())
    return [Middleware(Guard, names=names)]


def _host_of(scope: Message) -> str:
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    return host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _keep_to_this_machine(host: str, folder: str) -> None:
    """Settings that gradio takes from the environment alone."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    # It asks its own server whether it is up; a proxy would be asked instead.
    for name in ("NO_PROXY", "no_proxy"):
        known = os.environ.get(name)
        os.environ[name] = ",".join(filter(None, [known, "127.0.0.1", "localhost", host]))


def _free_port(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port), family=_family(host)) as found:
            return int(found.getsockname()[1])
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{host}:{port}: {why}; name another with --port, or 0 for any free one"
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
