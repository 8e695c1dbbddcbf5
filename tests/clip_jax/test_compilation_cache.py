"""The compilation cache is reused by later processes, and its damage stops none of them."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from clip_jax import PretrainedClip, compilation_cache
from clip_jax.compilation_cache import OPTIONS, enable_compilation_cache
from clip_jax.model import abstract_params

ROOT = Path(__file__).parents[2]
USER = """
import json, sys
import jax, numpy as np
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.split("/")[-1]))
import clip_jax
clip = clip_jax.load(sys.argv[1])
latents = clip.encode_text(np.full((1, 3), clip.config.eos_id, np.int32))
print(json.dumps({
    "latents": np.asarray(latents).tolist(),
    "folder": jax.config.values["jax_compilation_cache_dir"],
    "found": events.count("cache_hits"), "written": events.count("cache_misses"),
}))
"""


@pytest.fixture
def model(small_config, tmp_path):
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32),
        abstract_params(small_config),
    )
    return PretrainedClip(small_config, params).save(tmp_path / "model")


@pytest.fixture
def use(model, tmp_path):
    """Runs a new process; returns its cache hits and writes, and the lines of its stderr."""

    def run(**variables):
        own = {name: value for name, value in os.environ.items() if "CACHE" not in name}
        own |= {"XDG_CACHE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        # All programs, or hardly one of this small model's is worth keeping.
        own |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **variables}
        done = subprocess.run(
            [sys.executable, "-c", USER, model], env=own, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout), done.stderr.splitlines()

    return run


def test_a_second_process_compiles_nothing(use, tmp_path):
    first, told = use()
    folder = Path(first["folder"])
    assert folder.is_relative_to(tmp_path / "home/rudolph-jax") and not told
    assert first["written"] == len(list(folder.glob("*-cache"))) > 0 == first["found"]
    again, told = use()
    assert (again["found"], again["written"], told) == (first["written"], 0, [])
    assert again["latents"] == first["latents"]

    damaged, unfinished, *_ = sorted(folder.glob("jit_*-cache"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    unfinished.write_bytes(b"")
    unfinished.with_name(unfinished.name.replace("-cache", "-atime")).unlink()
    mended, told = use()
    assert mended["latents"] == first["latents"]
    assert mended["found"] == first["written"] - 2 and unfinished.stat().st_size
    assert sum("Error reading" in line for line in told) == 1


def test_jax_options_are_respected(use, tmp_path):
    off, _ = use(JAX_ENABLE_COMPILATION_CACHE="false")
    assert off["folder"] is None and off["written"] == 0
    moved, _ = use(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "elsewhere"))
    assert moved["written"] == len(list((tmp_path / "elsewhere").glob("*-cache"))) > 0
    assert not (tmp_path / "home").exists()


@pytest.fixture
def unconfigured(monkeypatch):
    """Removes the test suite's own cache configuration."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    names = ["jax_compilation_cache_dir", *OPTIONS]
    before = {name: jax.config.values[name] for name in names}
    for name, value in zip(names, (None, -1, 1.0), strict=True):
        jax.config.update(name, value)
    compilation_cache._prepared.cache_clear()
    yield
    compilation_cache._prepared.cache_clear()
    for name, value in before.items():
        jax.config.update(name, value)


def test_unwritable_directory_warns_once(unconfigured, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="programs are not cached: .*/file.*XDG_CACHE_HOME"):
        enable_compilation_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_user_configuration_is_not_changed(unconfigured, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_max_size", 12345)
    enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_max_size"] == 12345
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0.1
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == "/elsewhere"


def test_processors_have_separate_directories(monkeypatch):
    here = compilation_cache.compilation_cache_dir()
    monkeypatch.setattr(compilation_cache.platform, "machine", lambda: "riscv64")
    assert compilation_cache.compilation_cache_dir().parent == here.parent
    assert compilation_cache.compilation_cache_dir() != here
