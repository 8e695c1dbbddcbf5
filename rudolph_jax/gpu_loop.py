"""Compiler options for the sampler's loop on GPUs: its steps as one CUDA graph.

A step of RUDOLPH-350M is some five hundred kernels, many of them shorter than a launch from the
host. XLA records the kernels of a loop's body as a graph by default and launches that in each step;
with WHILE among the commands the loop itself is part of the graph, and no step waits for the host.

RUDOLPH_JAX_GPU_LOOP=0 turns the options off.
"""

from __future__ import annotations

import contextlib
import os

import jax

from clip_jax.platforms import traced_platform

VARIABLE = "RUDOLPH_JAX_GPU_LOOP"
# XLA's own choice, and the loop. XLA drops what a driver cannot record.
COMMANDS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE"
OPTIONS = {"xla_gpu_enable_command_buffer": COMMANDS}

# Part of the key of every jitted function.
_forced = jax.make_user_context(None)


def in_use() -> bool:
    """Returns whether a program that is traced now gets the options: on GPUs unless turned off."""
    if traced_platform() != "gpu":
        return False
    forced: bool | None = _forced.value
    return os.environ.get(VARIABLE) != "0" if forced is None else forced


def options() -> dict[str, str]:
    """Returns `compiler_options` of a jitted function whose loop is to be one graph."""
    return OPTIONS if in_use() else {}


def forced(use: bool | None) -> contextlib.AbstractContextManager[None]:
    """Forces the options on or off within the context, on GPUs alone; None: by the variable."""
    context: contextlib.AbstractContextManager[None] = _forced(use)
    return context
