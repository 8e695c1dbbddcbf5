"""Runs checks one after the other, on every process, and shows what they found as one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax

from clip_jax.errors import InputError, one_line
from clip_jax.progress import elapsed_lines
from experiments.cli.exit_status import StorageError
from experiments.distributed.processes import Processes

OK, WARNING, ERROR = "ok", "warning", "error"
VERDICT_STYLES = {OK: "green", WARNING: "yellow", ERROR: "bold red"}  # on a terminal


class Findings:
    """Holds what each check of this process found: (name, verdict, text)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def add(self, name: str, verdict: str, text: str) -> None:
        self.rows.append((name, verdict, one_line(text)))

    def attempt(self, name: str, check: Callable[[], Any]) -> Any:
        """Returns check(), whose text is found too if it is one; None where it raises InputError.

        An error of the system or of a bucket is one as well. So processes that take turns all come
        to the next one.
        """
        try:
            with elapsed_lines(f"checking {name}", quiet=jax.process_index() > 0):
                found = check()
        except (InputError, StorageError) as error:
            self.add(name, ERROR, str(error))
            return None
        except OSError as error:
            known = error.errno is not None
            self.add(name, ERROR, f"{error.filename}: {error.strerror}" if known else str(error))
            return None
        if isinstance(found, str):
            self.add(name, OK, found)
        return found

    def gather(self, processes: Processes) -> list[tuple[str, str, str]]:
        """Returns the rows of process 0, and those of others that went wrong, with their number."""
        replies = processes.gather(json.dumps(self.rows))
        first, *others = (json.loads(reply) for reply in replies)
        merged = [tuple(row) for row in first]
        for index, rows in enumerate(others, 1):
            for name, verdict, text in rows:
                if verdict != OK and (name, verdict, text) not in merged:
                    merged.append((name, verdict, f"process {index}: {text}"))
        return merged


def format_table(rows: list[tuple[str, str, str]]) -> str:
    """Returns a line a row, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {verdict:<{widths[1]}}  {text}" for name, verdict, text in rows
    )
