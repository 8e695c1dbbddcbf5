"""The far side of `benchmarks.peer.Peer`: a loop over orders. Standard library only.

An order is a JSON line {"task": name, "arguments": {...}}, its answer a JSON line {"value", "wall",
"processor", "peak"}: seconds of wall time and of all threads of the process, and the most bytes of
memory that it has had. What else is printed goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping


def serve(tasks: Mapping[str, Callable[..., object]]) -> None:
    """Answers until stdin ends. An error ends the process with its trace."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        task, arguments = tasks[order["task"]], order["arguments"]
        wall, processor = time.perf_counter(), time.process_time()
        value = task(**arguments)
        times = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        print(json.dumps({"value": value, **times, "peak": peak()}), file=answers, flush=True)


def peak() -> int | None:
    """The most resident memory of this process in bytes; None where Linux's account is absent.

    Not `getrusage`, which counts the parent's memory at the fork.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except FileNotFoundError:
        return None
