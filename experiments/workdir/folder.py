"""Holds the folder of a run: nobody else writes there, and it is still the one begun with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from clip_jax.errors import InputError
from clip_jax.paths import is_remote
from experiments.cli.exit_status import DivergedError, StorageError
from experiments.distributed.processes import Processes
from experiments.workdir.lock import RunLock


class RunFolder:
    """Watches a run's folder, and folders in it, for being removed, moved or replaced.

    lock: None on a process that is not the first. An open descriptor of each folder keeps the file
    system from giving its inode to a new folder of the same name.
    """

    def __init__(self, folder: Path, lock: RunLock | None) -> None:
        self.folder, self._lock = folder, lock
        self._descriptors: dict[Path, int] = {}
        self.watch(folder)

    def watch(self, folder: Path) -> None:
        """Takes a folder that exists into what `check` looks at; of a bucket the lock alone is."""
        if is_remote(folder):
            return
        self._descriptors[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def problem(self) -> str:
        """Why nothing may be written there any more; "" where it may."""
        for folder, descriptor in self._descriptors.items():
            try:
                same = os.path.samestat(os.fstat(descriptor), folder.stat())
            except FileNotFoundError:
                same = False
            except OSError:
                continue  # a server that is away: the write itself fails
            if not same:
                return f"{folder}: was removed, moved or replaced while the run wrote there"
        if self._lock is not None and (problem := self._lock.problem()):
            return f"{self.folder}: {problem}"
        return ""

    def check(self) -> None:
        """Raises StorageError where nothing may be written there any more."""
        if problem := self.problem():
            raise _error(problem)

    def look(self) -> None:
        """Raises StorageError if the last renewal of the lock found it gone; reads nothing."""
        if self._lock is not None and self._lock.problem_found:
            self.check()

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


@contextlib.contextmanager
def hold(folder: Path, processes: Processes) -> Iterator[RunFolder]:
    """Holds a run's folder for all processes; the first one takes its lock.

    Raises InputError, everywhere, where another run holds it or where not all processes see it;
    StorageError at the end, or in place of another error, where the folder is gone.
    """
    with contextlib.ExitStack() as stack:
        lock = RunLock(folder) if processes.first else None
        if lock is not None:
            stack.callback(lock.release)
        acquire = lock.acquire if lock is not None else lambda: None
        processes.broadcast_from_first(acquire, InputError)
        processes.require_shared_folder(folder)
        held = RunFolder(folder, lock)
        stack.callback(held.close)
        try:
            yield held
        except (StorageError, DivergedError):
            raise
        except Exception as error:  # raised again where the folder is as it was
            if problem := held.problem():
                raise _error(problem) from error
            raise
        held.check()


def _error(problem: str) -> StorageError:
    return StorageError(
        f"{problem}; the run ends and writes nothing more. The same command resumes from what is "
        "left there"
    )
