"""HTTP/1.1 connections that must send their requests' headers in good time."""

from __future__ import annotations

import asyncio
from typing import Any

HEADER_SECONDS = 10.0


def prompt_protocol() -> type:
    """uvicorn's protocol, which by itself waits forever for a request's headers, with a limit."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class PromptProtocol(H11Protocol):
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self.forget()
            super().connection_lost(exc)

        def watch(self) -> None:
            """Starts the clock where headers are awaited and it does not run yet."""
            if self.conn.their_state is not h11.IDLE:
                self.forget()
            elif self.late is None:
                self.late = self.loop.call_later(HEADER_SECONDS, self.hang_up)

        def forget(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

        def hang_up(self) -> None:
            self.late = None
            if self.conn.their_state is h11.IDLE:
                self.transport.close()

    return PromptProtocol
