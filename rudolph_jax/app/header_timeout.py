"""Timeout for the headers of HTTP/1.1 requests."""

from __future__ import annotations

import asyncio
from typing import Any

HEADER_SECONDS = 10.0


def header_timeout_protocol() -> type:
    """Returns uvicorn's protocol with a timeout; its own waits forever for a request's headers."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class HeaderTimeoutProtocol(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.update_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.update_timer()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.update_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_timer()
            super().connection_lost(exc)

        def update_timer(self) -> None:
            """Starts the timer while headers are awaited, and stops it otherwise."""
            if self.conn.their_state is not h11.IDLE:
                self.stop_timer()
            elif self.timer is None:
                self.timer = self.loop.call_later(HEADER_SECONDS, self.close_idle)

        def stop_timer(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def close_idle(self) -> None:
            self.timer = None
            if self.conn.their_state is h11.IDLE:
                self.transport.close()

    return HeaderTimeoutProtocol
