"""Worker side of `benchmarks.worker.Worker`: a request loop. Standard library only.

A request is a JSON line {"task": name, "arguments": {...}}, its reply a JSON line {"value",
"wall_seconds", "cpu_seconds", "peak_bytes"}: CPU time of all threads of the process, peak memory so
far. All other output goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping


def serve(tasks: Mapping[str, Callable[..., object]]) -> None:
    """Reply until stdin ends. An error ends the process with its traceback."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        task, arguments = tasks[request["task"]], request["arguments"]
        wall, cpu = time.perf_counter(), time.process_time()
        value = task(**arguments)
        reply = {
            "value": value,
            "wall_seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "peak_bytes": peak_bytes(),
        }
        print(json.dumps(reply), file=replies, flush=True)


def peak_bytes() -> int | None:
    """Return the peak resident memory of this process; None where /proc is absent.

    Not `getrusage`, which counts the parent's memory at the fork.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except FileNotFoundError:
        return None
