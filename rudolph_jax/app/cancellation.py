"""Cancellation of image generations, by session."""

from __future__ import annotations

import threading

from clip_jax.errors import InputError


class CancellationRegistry:
    """Registers one generation for each session, so that it can be cancelled.

    One that waits in the queue can be cancelled too: it then ends as soon as it starts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}

    def start(self, session: str) -> None:
        with self._lock:
            if session in self._events:
                raise InputError(
                    "your previous drawing is running or queued; stop it or wait until it ends"
                )
            self._events[session] = threading.Event()

    def event(self, session: str) -> threading.Event:
        """Returns the session's event, set once it is cancelled, or if it has started nothing."""
        with self._lock:
            event = self._events.get(session)
        if event is None:
            event = threading.Event()
            event.set()
        return event

    def cancel(self, session: str) -> None:
        self.event(session).set()

    def finish(self, session: str) -> None:
        with self._lock:
            self._events.pop(session, None)
