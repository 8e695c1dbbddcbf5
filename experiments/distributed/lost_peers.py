"""Ends a run whose processes are no longer all there, and names the one that is lost.

Each process writes who it is and a number that it raises every second. The processes of its machine
read that, and the first one reads all, and writes which of them are silent, which all others read:
values that grow with the processes, not with their square. A collective with
a lost process fails at once where its connection is closed, a barrier of a checkpoint waits; so an
error of the runtime is looked into, and a thread ends what waits for a process of this machine
that is gone. One of another machine the runtime itself misses, after 100 s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator

import jax

from clip_jax.errors import InputError
from experiments.cli.exit_status import LEFT_BEHIND, DivergedError, PeerLostError, StorageError
from experiments.distributed.processes import Processes, exit_process
from experiments.distributed.runtime_aborts import answered_aborts
from experiments.workdir.process_identity import ProcessIdentity

BEAT_SECONDS = 1.0
# Since a process last raised its number, once an error says that some process is lost.
SILENT_SECONDS = 10.0
# How long an error, or an abort, waits to be explained.
PATIENCE_SECONDS = 15.0
# For the main thread to come to its own error, before a thread ends the process.
LINGER_SECONDS = 5.0
# Gloo, gRPC and the coordination service, of a process that is gone.
GONE = re.compile(
    r"connection (closed|reset) by|connection refused|broken pipe|socket closed|"
    r"stopped sending heartbeats|heartbeat timeout|unhealthy|task .*(has failed|crashed)|"
    r"failed to send RPC to coordination service",
    re.IGNORECASE,
)
KNOWN = (InputError, StorageError, DivergedError, PeerLostError)


def values_a_beat(processes: int, on_a_machine: int) -> int:
    """Returns how many values all processes together write to the store and read from it.

    on_a_machine: processes of one machine, which read one another's. Each reads `lost` besides, the
    first all beats and, its summary being its own, no other.
    """
    own = processes  # written
    others = (processes - 1) * (on_a_machine + 1) + 1  # beats of a machine, the summary
    return own + others + processes + processes


class Peers:
    """The other processes of a run; use as a context manager, and `errors` within it."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._closing = threading.Event()
        self._identities: dict[int, ProcessIdentity] = {}
        self._beat = 0
        self._beats: dict[int, int] = {}
        self._changed: dict[int, float] = {}
        self._silent: list[int] = []  # as the first process finds
        self._summary = ""
        own = ProcessIdentity.own()
        self._own, machine = own, f"{own.host} {own.machine}"
        self._machine = hashlib.sha256(machine.encode()).hexdigest()[:16]
        self._answered = time.monotonic()
        self._store_fails = False
        self._named: list[int] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Peers:
        if self._processes.count > 1:
            self._answered = time.monotonic()
            self._stack.enter_context(answered_aborts(self._explain_abort, LEFT_BEHIND))
            threading.Thread(target=self._exchange, daemon=True, name="peers").start()
            threading.Thread(target=self._end_if_gone, daemon=True, name="lost peers").start()
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, Exception):
                self._explain(error)
        finally:
            self._closing.set()
            self._stack.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors that a lost process causes into PeerLostError."""
        try:
            yield
        except Exception as error:  # raised again where no process is lost
            self._explain(error)
            raise

    def lost(self) -> list[int]:
        """The processes that are known to be lost, as far as can be seen now."""
        if self._named:
            return self._named
        if gone := self._gone():
            return gone
        if self._silent:
            return self._silent
        silence = time.monotonic() - self._answered
        unanswered = self._store_fails or silence > SILENT_SECONDS
        return [0] if unanswered and not self._processes.first else []

    def _gone(self) -> list[int]:
        """Returns the processes of this machine that have ended."""
        return sorted(i for i, who in list(self._identities.items()) if who.runs() is False)

    def _explain(self, error: Exception) -> None:
        """Raises PeerLostError from an error that a lost process explains."""
        if self._processes.count == 1 or isinstance(error, KNOWN):
            return
        says_so = False
        suspect = False
        cause: BaseException | None = error
        while cause is not None:
            # Python's own sockets and pipes lead elsewhere: none of them joins the processes.
            says_so |= not isinstance(cause, OSError) and bool(GONE.search(str(cause)))
            suspect |= isinstance(cause, jax.errors.JaxRuntimeError)
            cause = cause.__cause__ or cause.__context__
        if not (says_so or suspect):
            return
        lost = self._wait_for_lost()
        if lost or says_so:
            raise PeerLostError(self._tell(lost)) from error

    def _explain_abort(self) -> str:
        return "" if self._closing.is_set() else self._tell(self._wait_for_lost())

    def _wait_for_lost(self) -> list[int]:
        since = time.monotonic()
        while not (lost := self.lost()) and time.monotonic() - since < PATIENCE_SECONDS:
            time.sleep(BEAT_SECONDS / 10)
        return lost

    def _tell(self, lost: list[int]) -> str:
        """The line of an error, which the other processes then give too."""
        if lost and not self._named:
            self._named = lost
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._processes.put("lost", json.dumps(lost))
        names = [
            f"process {i}" + (f" ({self._identities[i]})" if i in self._identities else "")
            for i in lost
        ]
        who = ", ".join(names) or "a process, it is not known which,"
        verb = "are" if len(lost) > 1 else "is"
        return (
            f"{who} {verb} lost, and no process can go on alone; the same command on all of them "
            "resumes from the last complete checkpoint"
        )

    def _exchange(self) -> None:
        """Apart from what judges, since an answer may never come."""
        while not self._closing.is_set():
            try:
                self.exchange()
            except jax.errors.JaxRuntimeError:
                self._store_fails = True
            else:
                self._store_fails = False
            self._closing.wait(BEAT_SECONDS)

    def exchange(self) -> None:
        """Writes this process's beat and takes what concerns it of the others'."""
        self._beat += 1
        value = json.dumps({**dataclasses.asdict(self._own), "beat": self._beat})
        key = f"peers/{self._machine}/{self._processes.index}"
        self._processes.put(key, value, overwrite=True)
        if self._processes.first:
            self._take(self._processes.get_all("peers"))
            self._sum_up()
        else:
            self._take(self._processes.get_all(f"peers/{self._machine}"))
            self._take_summary(self._processes.get("peers summary"))
        if (named := self._processes.get("lost")) is not None:
            self._named = json.loads(named)

    def _take(self, shown: dict[str, str]) -> None:
        now = time.monotonic()
        for name, value in shown.items():
            index, fields = int(name), json.loads(value)
            beat = fields.pop("beat")
            if index == self._processes.index:
                continue
            self._identities[index] = ProcessIdentity(**fields)
            if self._beats.get(index) != beat:
                self._beats[index], self._changed[index] = beat, now

    def _sum_up(self) -> None:
        """Writes, as the first process, who has been silent, in a text that changes every time."""
        now = self._answered = time.monotonic()
        self._silent = sorted(i for i, at in self._changed.items() if now - at > SILENT_SECONDS)
        silent = {i: dataclasses.asdict(self._identities[i]) for i in self._silent}
        first = dataclasses.asdict(self._own)
        summary = json.dumps({"beat": self._beat, "first": first, "silent": silent})
        self._processes.put("peers summary", summary, overwrite=True)

    def _take_summary(self, summary: str | None) -> None:
        """A summary that stays as it is comes from a process that does not run."""
        if summary is None or summary == self._summary:
            return
        self._summary, self._answered = summary, time.monotonic()
        found = json.loads(summary)
        self._identities[0] = ProcessIdentity(**found["first"])
        for name, fields in found["silent"].items():
            self._identities[int(name)] = ProcessIdentity(**fields)
        self._silent = sorted(map(int, found["silent"]))

    def _end_if_gone(self) -> None:
        while not self._closing.wait(BEAT_SECONDS):
            if not (self._named or self._gone()):
                continue
            if self._closing.wait(LINGER_SECONDS):
                return
            os.write(2, f"error: {self._tell(self.lost())}\n".encode())
            exit_process(LEFT_BEHIND)
