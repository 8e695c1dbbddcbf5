"""Eight fake CPU devices, and small models that a second is enough for.

Makes `cli_commands.py` importable: pytest's importlib mode leaves sys.path alone.
"""

import gc
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version

# Before JAX starts its backends.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of these small models' time is compilation. Without optimisation it takes a third less, and
# with the older code for fusions a fifth in all. A program that is not split into parts, to compile
# them side by side, takes three tenths less again. The last two are flags of this jaxlib.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * version("jaxlib").startswith("0.10.")
)
os.environ["HF_HUB_OFFLINE"] = "1"
# Compiled programs are shared within one run of the tests: its workers and child processes inherit
# the folder that its first process makes.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
# jaxlib 0.12.0 crashed twice in 4,155 tests as it serialised a program for this folder: there only
# programs that take long to compile are kept.
LEAST = "5" if version("jaxlib").startswith("0.12.") else "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = LEAST
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from tokenizers.pre_tokenizers import ByteLevel  # noqa: E402

from clip_jax import (  # noqa: E402
    ClipConfig,
    ImageConfig,
    InputError,
    TextConfig,
    VisionConfig,
    progress,
)
from clip_jax.byte_bpe import VocabularySpec  # noqa: E402

GOLDENS = Path(__file__).parent / "goldens"
sys.path.append(str(Path(__file__).parent))


def pytest_collection_modifyitems(items):
    """Files of training runs first: the last file leaves a worker without work for its length."""
    items.sort(key=lambda item: "experiments" not in item.path.parts)


def pytest_collection_finish():
    """Freezes what is imported by now: looked through by each collection, it slows tracing down."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def no_elapsed_lines():
    """On a slow machine a phase may take 10 s; tests compare what commands print."""
    progress.FIRST_LINE_SECONDS = 3600.0


@pytest.fixture(scope="session")
def goldens() -> Path:
    return GOLDENS


@pytest.fixture(scope="session")
def small_config() -> ClipConfig:
    """Sizes that all differ, so that a swapped axis cannot pass."""
    return ClipConfig(
        VisionConfig(image_size=24, patch_size=8, width=32, layers=2, heads=4, mlp_width=48),
        TextConfig(vocab_size=60, context_length=12, width=24, layers=3, heads=2, mlp_width=40),
        embed_dim=20,
        image=ImageConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )


@pytest.fixture(scope="session")
def byte_vocabulary() -> Callable[..., tuple[dict[str, int], list[tuple[str, str]]]]:
    """Makes (vocab, merges) of byte-level BPE: all bytes and random merges of common ones."""

    def make(spec: VocabularySpec, merges: int = 400, seed: int = 0):
        generator = np.random.default_rng(seed)
        alphabet = sorted(ByteLevel.alphabet())
        ends = [byte + spec.end_of_word for byte in alphabet] if spec.end_of_word else []
        # English and Russian letters, and the space of families that keep it.
        common = [*"etaoinshr'", *"ÐÑ°ºĄĠ", *(c for c in alphabet if 0xA1 <= ord(c) < 0xC0)]
        starts, rests = list(common), [*common, *(c + spec.end_of_word for c in common)]
        pairs: dict[str, tuple[str, str]] = {}
        while len(pairs) < merges:
            left, right = generator.choice(starts), generator.choice(rests)
            piece = str(left + right)
            if piece in pairs or piece in alphabet or len(piece) > 16:
                continue
            pairs[piece] = (str(left), str(right))
            rests.append(piece)
            if not (spec.end_of_word and piece.endswith(spec.end_of_word)):
                starts.append(piece)
        pieces = [*alphabet, *ends, *pairs]
        special = [spec.pad, spec.bos, spec.eos] if spec.pad else []
        pieces = special + pieces if special else [*pieces, spec.bos, spec.eos]
        return {piece: i for i, piece in enumerate(pieces)}, list(pairs.values())

    return make


@pytest.fixture
def compilations():
    """Names of what is compiled or found in a folder of programs."""
    names = []

    def listen(event, _, fun_name="", **__):
        if event.endswith("backend_compile_duration"):
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


WRONG_VALUES = (
    None, 5, -1, 0, 2.5, float("nan"), True, "кот", b"\xff", [], ["кот", 5], [None], [[1], [2, 3]],
    {}, {"up": 1}, {1}, (1, 2), object(), Path, np.zeros(3), np.zeros((2, 3, 4)),
    np.array([["a"]]),
)  # fmt: skip


@pytest.fixture
def try_wrong_values():
    """Calls a function with wrong values of each parameter in turn.

    Each call returns or raises an InputError; returned are parameter -> values it accepted and the
    messages of the errors.
    """

    def attempt(function, arguments, names=None):
        accepted, messages = {}, {}
        for name in names or inspect.signature(function).parameters:
            accepted[name], messages[name] = [], []
            for value in WRONG_VALUES:
                try:
                    result = function(**{**arguments, name: value})
                    if inspect.isgenerator(result):
                        list(result)
                    accepted[name].append(value)
                except InputError as error:
                    messages[name].append(str(error))
                except Exception as error:
                    raise AssertionError(f"{name}={value!r}: {type(error)}: {error}") from error
        return accepted, messages

    return attempt
