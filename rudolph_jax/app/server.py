"""The page served: one process, one queue, loopback unless asked otherwise, no other network."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

from clip_jax.errors import InputError
from rudolph_jax.app.bodies import Bounds
from rudolph_jax.app.guard import Guard
from rudolph_jax.app.limits import Limits
from rudolph_jax.app.origins import Origins, is_loopback
from rudolph_jax.app.page import FORGET, STYLE, build_page, theme
from rudolph_jax.app.studio import Studio

PORT = 7860
CONNECTIONS = 512  # below the usual 1,024 open files of a process


def serve(
    studio: Studio, host: str = "127.0.0.1", port: int = PORT, origins: Sequence[str] = ()
) -> None:
    """Prints where the page is, and serves it until the process is interrupted.

    port: 0: any free one. One that is taken, or a host that is not this machine's, raises
    InputError. origins: of a proxy through which the page is reached too.
    """
    check_gradio()
    with (
        listening_socket(host, port) as listening,
        tempfile.TemporaryDirectory(prefix="rudolph-page-") as folder,
    ):
        port = listening.getsockname()[1]
        _keep_to_this_machine(folder)
        app = guarded_app(studio, folder, Origins(host, port, origins))
        print(f"the page: {_url(host, port)} (Ctrl-C ends it)", flush=True)
        if not is_loopback(host):
            print("anyone who can reach this machine can use it", flush=True)
        # Told to end by another process, it tidies up as well.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when it has ended
            http_server(app).run(sockets=[listening])


def guarded_app(studio: Studio, folder: str, origins: Origins) -> Guard:
    """The page as an ASGI application, with the guard outside of everything of gradio's.

    folder: for uploads and drawings.
    """
    import fastapi
    import gradio as gr

    page = build_page(studio)
    mounted = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None), page, "/", max_file_size=studio.limits.upload_bytes,
        theme=theme(), css=STYLE, footer_links=[], run_history=False, ssr_mode=False,
        mcp_server=False, pwa=False, show_error=False, enable_monitoring=False,
        app_kwargs={"openapi_url": None},
    )  # fmt: skip
    # Mounted pages are not marked so, and files that were not uploaded would be taken for uploads.
    page.has_launched = True
    return Guard(mounted, origins, folder, bounds_of(studio.limits))


def bounds_of(limits: Limits) -> Bounds:
    """A task's JSON has room for the longest texts, each character escaped."""
    return Bounds(
        json_bytes=(1 << 18) + 12 * (4 * limits.prompt + limits.labels * (limits.label + 2)),
        upload_bytes=limits.upload_bytes,
        uploads_bytes=limits.uploads_mb << 20,
        remembered=2 * FORGET,
    )


def http_server(app: Guard) -> Any:
    """uvicorn's server, not running."""
    import uvicorn

    from rudolph_jax.app.connections import prompt_protocol

    config = uvicorn.Config(
        app, http=prompt_protocol(), ws="none", lifespan="on", log_level="error", access_log=False,
        proxy_headers=False, server_header=False, limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
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


def _keep_to_this_machine(folder: str) -> None:
    """Settings that gradio takes from the environment alone."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder


def listening_socket(host: str, port: int) -> socket.socket:
    """InputError where the port is taken or the host is not this machine's."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{host}:{port}: {why}; name another with --port, or 0 for any free one"
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
