"""Server of the page: one process, one queue, loopback by default, no requests to other hosts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

from clip_jax.errors import InputError
from rudolph_jax.app.app_state import AppState
from rudolph_jax.app.limits import Limits
from rudolph_jax.app.origins import Origins, is_loopback
from rudolph_jax.app.page import DELETE_AFTER, STYLE, build_page, theme
from rudolph_jax.app.request_body import RequestLimits
from rudolph_jax.app.security_middleware import SecurityMiddleware

PORT = 7860
MAX_CONNECTIONS = 512  # below the usual 1,024 open files of a process


def serve(
    state: AppState, host: str = "127.0.0.1", port: int = PORT, origins: Sequence[str] = ()
) -> None:
    """Prints the page's URL, and serves it until the process is interrupted.

    port: 0: any free one. A port in use, or a host of another machine, raises InputError.
    origins: of a reverse proxy.
    """
    check_gradio()
    with (
        listening_socket(host, port) as listening,
        tempfile.TemporaryDirectory(prefix="rudolph-page-") as folder,
    ):
        port = listening.getsockname()[1]
        _set_gradio_environment(folder)
        app = create_app(state, folder, Origins(host, port, origins))
        print(f"the page: {_url(host, port)} (Ctrl-C ends it)", flush=True)
        if not is_loopback(host):
            print("anyone who can reach this machine can use it", flush=True)
        # SIGTERM cleans up as an interrupt does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
            http_server(app).run(sockets=[listening])


def create_app(state: AppState, folder: str, origins: Origins) -> SecurityMiddleware:
    """Returns the page as an ASGI application inside the security middleware.

    folder: for uploads and generated images.
    """
    import fastapi
    import gradio as gr

    page = build_page(state)
    mounted = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None), page, "/", max_file_size=state.limits.upload_bytes,
        theme=theme(), css=STYLE, footer_links=[], run_history=False, ssr_mode=False,
        mcp_server=False, pwa=False, show_error=False, enable_monitoring=False,
        app_kwargs={"openapi_url": None},
    )  # fmt: skip
    # gradio does not set it for mounted pages, and would then accept files that were not uploaded.
    page.has_launched = True
    return SecurityMiddleware(mounted, origins, folder, request_limits(state.limits))


def request_limits(limits: Limits) -> RequestLimits:
    """Returns limits that fit the longest texts, with each character escaped in JSON."""
    return RequestLimits(
        json_bytes=(1 << 18) + 12 * (4 * limits.prompt + limits.labels * (limits.label + 2)),
        upload_bytes=limits.upload_bytes,
        uploads_bytes=limits.uploads_mb << 20,
        remembered=2 * DELETE_AFTER,
    )


def http_server(app: SecurityMiddleware) -> Any:
    """Returns uvicorn's server, not running."""
    import uvicorn

    from rudolph_jax.app.header_timeout import header_timeout_protocol

    config = uvicorn.Config(
        app, http=header_timeout_protocol(), ws="none", lifespan="on", log_level="error",
        access_log=False, proxy_headers=False, server_header=False,
        limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)


def check_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError(
            "the page needs gradio, which is not installed: pip install 'rudolph-jax[app]'"
        ) from error


def _set_gradio_environment(folder: str) -> None:
    """Sets what gradio reads from the environment alone."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder


def listening_socket(host: str, port: int) -> socket.socket:
    """Opens the socket; a port in use or a host of another machine raises InputError."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{host}:{port}: {reason}; name another with --port, or 0 for any free one"
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
