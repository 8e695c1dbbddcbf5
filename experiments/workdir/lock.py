"""Lets one run at a time write into a folder.

The lock is a file in that folder with the holder's host, process and start, and a number that the
holder raises every few seconds. No clock of two machines is compared: whoever finds the lock of a
holder that it cannot see watches whether that number changes, on its own monotonic clock. `flock`
guards each look at the file, for an instant; the lock itself needs nothing that is let go with a
process, so a folder on NFS holds it too.

In a bucket the lock is an object, created only where there is none. Two runs that take over one
stale lock in the same instant are not distinguished: the first finds out at its next look.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.paths import absolute, as_path, is_remote
from experiments.cli.exit_status import StorageError
from experiments.workdir.process_identity import ProcessIdentity

FILE_NAME = ".run.lock"
RENEWAL_SECONDS = 5.0
# Twelve renewals: a holder that shows nothing for so long is gone, or will find its lock taken.
STALE_SECONDS = 60.0
POLL_SECONDS = 0.5

_HELD: set[RunLock] = set()


@dataclasses.dataclass(frozen=True)
class Holder:
    """The run that a lock file names.

    token: drawn for this one holding. beat: how often it was renewed.
    """

    identity: ProcessIdentity
    command: str
    since: str
    token: str
    beat: int

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """None for a file that was cut off or is none of ours."""
        try:
            fields = json.loads(text)
            identity = ProcessIdentity(
                str(fields["host"]), str(fields["machine"]), int(fields["pid"]),
                str(fields["started"]),
            )  # fmt: skip
            names = ("command", "since", "token")
            return cls(identity, *(str(fields[name]) for name in names), int(fields["beat"]))
        except (ValueError, TypeError, KeyError, OverflowError):
            return None

    def to_json(self) -> str:
        fields = dataclasses.asdict(self)
        return json.dumps({**fields.pop("identity"), **fields})

    def __str__(self) -> str:
        return f"{self.identity}, since {self.since} ({self.command})"


class RunLock:
    """The lock of one folder; use as a context manager, or acquire and release."""

    def __init__(
        self,
        folder: str | Path,
        say: Callable[[str], None] | None = None,
        stale_seconds: float = STALE_SECONDS,
        renewal_seconds: float = RENEWAL_SECONDS,
    ) -> None:
        """say: takes a line for a person; stderr by default."""
        self.folder = absolute(as_path(folder))
        self.file = self.folder / FILE_NAME
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._stale, self._renewal = stale_seconds, renewal_seconds
        self._own: Holder | None = None
        self._made = False
        self._writing = threading.Lock()
        self._released = threading.Event()
        self._problem = ""

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Takes the lock and renews it from then on, in a thread of its own.

        Raises InputError that names the holder, at once where it runs on this machine; of a holder
        on another the lock is watched for up to `stale_seconds`.
        """
        try:
            self._made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own = self._take()
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be locked ({error})") from error
        _HELD.add(self)
        threading.Thread(target=self._renew_on, daemon=True, name="run lock").start()

    def _take(self) -> Holder:
        own = Holder(
            ProcessIdentity.own(),
            " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
            datetime.now(UTC).isoformat(timespec="seconds"),
            os.urandom(8).hex(),
            0,
        )
        first: str | None = None
        began = 0.0
        while True:
            with self._opened(create=True) as lock:
                text = lock.read()
                found = Holder.parse(text)
                # Who made the file and was killed before it wrote anything holds nothing.
                free = not text
                runs = found.identity.runs() if found else None
                if not free and runs is False:
                    self._say(f"{self.folder}: lock taken over from {found}, which has ended")
                    free = True
                elif not free and first is not None and time.monotonic() - began > self._stale:
                    self._say(
                        f"{self.folder}: lock taken over from {found or 'an unreadable file'}, not "
                        f"renewed for {self._stale:g} s"
                    )
                    free = True
                if free and lock.take(own.to_json()):
                    return own
            if not free and (runs or (first is not None and text != first)):
                raise InputError(
                    f"{self.folder}: in use by {found or 'another run'}; end that run, or name "
                    "another folder"
                )
            if first is None:
                first, began = text, time.monotonic()
                self._say(
                    f"{self.folder}: locked by {found or 'an unreadable file'}; up to "
                    f"{self._stale:g} s to see whether it is renewed"
                )
            time.sleep(min(POLL_SECONDS, self._stale / 4))

    def renew(self) -> None:
        """Raises the lock's number. A lock that is gone is a problem, which `check` raises."""
        with self._writing:
            if self._own is None:
                return
            try:
                with self._opened() as lock:
                    if problem := self._unlike_own(lock.read()):
                        self._problem = problem
                        return
                    self._own = dataclasses.replace(self._own, beat=self._own.beat + 1)
                    lock.write(self._own.to_json())
            except FileNotFoundError:
                self._problem = "its lock was removed"
            except OSError:
                pass  # a full disk or a server that is away: the run's own writes tell of it

    def problem(self) -> str:
        """Why this run may write there no longer; "" where it may. Reads the lock file."""
        with self._writing:
            if self._own is not None and not self._problem:
                try:
                    with self._opened() as lock:
                        self._problem = self._unlike_own(lock.read())
                except FileNotFoundError:
                    self._problem = "its lock was removed"
                except OSError:
                    pass
            return self._problem

    @property
    def problem_found(self) -> str:
        """`problem` as the last look at the file found it; looks at nothing."""
        return self._problem

    def check(self) -> None:
        """Raises StorageError where this run may write there no longer."""
        if problem := self.problem():
            raise StorageError(f"{self.folder}: {problem}; nothing more is written there")

    def release(self) -> None:
        """Removes the lock file if it is still this run's; a forked process changes nothing."""
        self._released.set()
        with self._writing:
            own, self._own = self._own, None
            _HELD.discard(self)
            if own is None or own.identity.pid != os.getpid():
                return
            with contextlib.suppress(OSError), self._opened() as lock:
                found = Holder.parse(lock.read())
                if found is not None and found.token == own.token:
                    self.file.unlink()
            if self._made:  # for a run that came to nothing
                with contextlib.suppress(OSError):
                    self.folder.rmdir()

    def _renew_on(self) -> None:
        while not self._released.wait(self._renewal) and not self._problem:
            self.renew()

    def _unlike_own(self, text: str) -> str:
        found = Holder.parse(text)
        if found is not None and self._own is not None and found.token == self._own.token:
            return ""
        return f"its lock was taken over by {found}" if found else "its lock was overwritten"

    @contextlib.contextmanager
    def _opened(self, create: bool = False) -> Iterator[_LockFile | _LockObject]:
        """The lock file, which no other process reads or writes meanwhile; or the lock object."""
        if is_remote(self.file):
            yield _LockObject(self.file, create)
            return
        while True:
            descriptor = os.open(self.file, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
            try:
                # Where there is no flock, two starts in the same instant are not distinguished.
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_at(descriptor, self.file):
                    yield _LockFile(descriptor)
                    return
            finally:
                os.close(descriptor)  # which ends the flock


def release_all() -> None:
    """Releases what this process holds, before it ends without unwinding."""
    for lock in list(_HELD):
        lock.release()


atexit.register(release_all)


def _is_at(descriptor: int, file: Path) -> bool:
    """Tells whether an open file is the one at a path, and not one that was removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


@dataclasses.dataclass(frozen=True)
class _LockFile:
    """An open lock file."""

    descriptor: int

    def read(self) -> str:
        return os.pread(self.descriptor, 1 << 16, 0).decode("utf-8", "replace")

    def write(self, text: str) -> None:
        data = text.encode("utf-8")
        os.pwrite(self.descriptor, data, 0)
        os.ftruncate(self.descriptor, len(data))

    def take(self, text: str) -> bool:
        self.write(text)
        return True


@dataclasses.dataclass(frozen=True)
class _LockObject:
    """A lock in a bucket. may_be_absent: whether that is no error."""

    file: Any
    may_be_absent: bool

    def read(self) -> str:
        try:
            return self.file.read_text()
        except FileNotFoundError:
            if not self.may_be_absent:
                raise
            return ""

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def take(self, text: str) -> bool:
        """Returns False where another run has made a new lock meanwhile."""
        self.file.unlink(missing_ok=True)
        return self.file.create(text.encode("utf-8"))
