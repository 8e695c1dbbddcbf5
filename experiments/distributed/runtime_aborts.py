"""Gives an abort of JAX's runtime an exit status and a line.

A client of the coordination service that misses another process, or the service, aborts from a
thread of its own. Its callback for that cannot be a Python function: jaxlib ends it in
`std::bad_cast`. So the answer is a handler of SIGABRT, which abort() calls in the thread that
aborts; Python's own handlers would wait for the main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator

from experiments.distributed.exit_now import leave

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


@contextlib.contextmanager
def answered_aborts(find: Callable[[], str], status: int) -> Iterator[None]:
    """Ends the process with `status` and find()'s line where something aborts it meanwhile.

    Where find() gives "", the abort takes its course.
    """
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]

    def answer(number: int) -> None:
        line = find()
        if line:
            # Not by print: the thread that is stopped may hold the stream's lock.
            os.write(2, f"error: {line}\n".encode())
            leave(status)
        libc.signal(number, None)  # SIG_DFL, which abort() raises once more

    handler = _HANDLER(answer)
    before = libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)
