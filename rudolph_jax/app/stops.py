"""Who has asked for a drawing to stop."""

from __future__ import annotations

import threading

from clip_jax.errors import InputError


class Stops:
    """One drawing a person at a time, by the name of the person's session.

    A drawing that waits for its turn can be stopped too: it then ends as soon as its turn comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, threading.Event] = {}

    def begin(self, session: str) -> None:
        with self._lock:
            if session in self._asked:
                raise InputError("a drawing of yours is at work or waits; stop it, or let it end")
            self._asked[session] = threading.Event()

    def of(self, session: str) -> threading.Event:
        """Set once a stop is asked for; set already where no drawing was begun."""
        with self._lock:
            known = self._asked.get(session)
        if known is None:
            known = threading.Event()
            known.set()
        return known

    def ask(self, session: str) -> None:
        self.of(session).set()

    def end(self, session: str) -> None:
        with self._lock:
            self._asked.pop(session, None)
