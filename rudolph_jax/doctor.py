"""Environment report for bug reports: versions, devices, caches, and a self-test of a model."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata

import jax
import numpy as np
from huggingface_hub import constants

from clip_jax.cache_dir import cache_dir
from clip_jax.cli import DISTRIBUTION, version
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.layers import unstack_layers
from rudolph_jax.config import RudolphConfig
from rudolph_jax.generation import GenerationConfig, sample_batches
from rudolph_jax.layout import Layout
from rudolph_jax.model import abstract_params
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.sampling import SamplingParams

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece",
            "pillow", "huggingface_hub")  # fmt: skip
VARIABLES = ("JAX_PLATFORMS", "XLA_FLAGS", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES")
SMALL = RudolphConfig(
    left_text_length=4, image_tokens_per_side=3, right_text_length=4, text_vocab_size=11,
    image_vocab_size=17, width=16, layers=1, heads=2,
)  # fmt: skip


def print_report() -> None:
    """Prints the report; RuntimeError where the self-test fails."""
    print(f"{DISTRIBUTION} {version()}, Python {platform.python_version()}, {platform.platform()}")
    print("packages:", ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES))
    print(f"devices: {devices()}; {os.cpu_count()} processors")
    for name in VARIABLES:
        if name in os.environ:
            print(f"{name}={os.environ[name]}")
    print(f"converted models: {cache_dir() / 'models'}")
    offline = ", offline" if constants.is_offline_mode() else ""
    print(f"downloads: {constants.HF_HUB_CACHE}{offline}")
    enable_compilation_cache()
    print(f"compiled programs: {_cache_location()}")
    start = time.monotonic()
    codes = self_test()
    seconds = time.monotonic() - start
    print(f"self-test: {codes} codes sampled from a tiny model are its likeliest ({seconds:.1f} s)")


def devices() -> str:
    """Lists the types of JAX's devices, their number, and their memory where it is known."""
    kinds: dict[str, int] = {}
    for device in jax.devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        size = f" with {memory / 2**30:.1f} GiB" if memory else ""
        kind = f"{device.platform} {device.device_kind}{size}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def self_test() -> int:
    """Compares greedy sampling with a run without a cache; returns the number of codes."""
    layout = Layout(SMALL)
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (0.1 * random.normal(size=leaf.shape)).astype(leaf.dtype),
        unstack_layers(abstract_params(SMALL)),
    )
    rudolph = PretrainedRudolph(SMALL, params)
    prompts = np.array([[[2, 5, 7, 3]]], np.int32)
    generation = GenerationConfig(SamplingParams(temperature=0.0, top_k=0, top_p=1.0), quiet=True)
    (drawn,) = sample_batches(rudolph, generation, "image", prompts, start=4, count=1)
    whole = np.concatenate([prompts[0], drawn[0]], axis=1)
    logits = np.asarray(rudolph.logits(whole))[0, layout.left.stop - 1 : -1, layout.code_logits]
    likeliest = logits.argmax(-1)
    if not np.isfinite(logits).all() or not (likeliest == drawn[0, 0]).all():
        raise RuntimeError(
            f"self-test: sampled {drawn[0, 0].tolist()}, and the likeliest are {likeliest.tolist()}"
        )
    return len(likeliest)


def _cache_location() -> str:
    return jax.config.values["jax_compilation_cache_dir"] or "in memory only"
