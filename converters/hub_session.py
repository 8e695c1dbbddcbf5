"""Bounds on what huggingface_hub itself reads from a hub, when it uploads."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from huggingface_hub import constants

from clip_jax.errors import InputError

MAX_RESPONSE_BYTES = 32 << 20
READ_TIMEOUT_SECONDS = 600.0  # between two pieces: a hub checks a commit of many files for minutes


@contextlib.contextmanager
def bounded_responses() -> Iterator[None]:
    """End each response to huggingface_hub at MAX_RESPONSE_BYTES, and each silence in time.

    Its client waits without end and reads whatever comes. InputError is raised where it reads.
    """
    from huggingface_hub.errors import Response
    from huggingface_hub.utils import get_session

    client_library = importlib.import_module(Response.__module__.partition(".")[0])

    class Bounded(client_library.SyncByteStream):  # type: ignore[name-defined]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            held = 0
            for part in self._stream:
                held += len(part)
                if held > MAX_RESPONSE_BYTES:
                    raise InputError(
                        f"{constants.ENDPOINT}: an answer is longer than {MAX_RESPONSE_BYTES:,} "
                        "bytes"
                    )
                yield part

        def close(self) -> None:
            self._stream.close()

    def bound(response: Any) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise InputError(f"{constants.ENDPOINT}: an answer is encoded; expected identity")
        response.stream = Bounded(response.stream)

    def limit(request: Any) -> None:
        request.headers["Accept-Encoding"] = "identity"
        waits = request.extensions.get("timeout") or {}
        named = {name: seconds for name, seconds in waits.items() if seconds is not None}
        limits = dict.fromkeys(("connect", "pool"), float(constants.HF_HUB_DOWNLOAD_TIMEOUT))
        limits |= dict.fromkeys(("read", "write"), READ_TIMEOUT_SECONDS)
        request.extensions = {**request.extensions, "timeout": limits | named}

    hooks = get_session().event_hooks
    hooks["request"].append(limit)
    hooks["response"].append(bound)
    try:
        yield
    finally:
        hooks["request"].remove(limit)
        hooks["response"].remove(bound)
