"""Orbax checkpoints written and read a few arrays at a time: their contents, and memory."""

import asyncio
import contextlib
import gc
import sys
import weakref

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from clip_jax import model_folder, orbax_io
from clip_jax.errors import InputError


def tree():
    kernel = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    return {
        "layers": {str(i): {"kernel": kernel + i, "bias": np.full(5, i)} for i in range(11)},
        "half": kernel.astype(ml_dtypes.bfloat16),
        "scalar": np.asarray(2.5),
        "transposed": kernel.T,
    }


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(a) is np.ndarray and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


class LazyArray:
    """Makes an array of 1 kB on `__array__`, and counts those in memory."""

    shape, dtype = (256,), np.dtype(np.float32)
    living = weakref.WeakSet()
    most = made = 0

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        array = np.full(self.shape, self.value, self.dtype).view(_Counted)
        LazyArray.living.add(array)
        LazyArray.made += 1
        LazyArray.most = max(LazyArray.most, len(LazyArray.living))
        return np.asarray(array)


class _Counted(np.ndarray):
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
def test_round_trip(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(orbax_io, "MAX_BYTES_IN_FLIGHT", at_once)
    orbax_io.save(tmp_path / "x", tree())
    assert_same(orbax_io.restore(tmp_path / "x"), tree())


def test_plain_orbax_restores_it(tmp_path):
    orbax_io.save(tmp_path / "x", tree())
    with ocp.PyTreeCheckpointer() as checkpointer:
        assert_same(checkpointer.restore(tmp_path / "x"), tree())


@pytest.mark.parametrize("settings", [{}, {"use_ocdbt": False}, {"use_compression": False}])
def test_checkpoints_of_plain_orbax_are_read(tmp_path, settings):
    with ocp.PyTreeCheckpointer(**settings) as checkpointer:
        checkpointer.save(tmp_path / "x", tree() | {"jax": jnp.arange(3.0)})
    assert_same(orbax_io.restore(tmp_path / "x"), tree() | {"jax": np.arange(3, dtype="f4")})


def test_arrays_are_made_as_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_io, "MAX_BYTES_IN_FLIGHT", 4096)
    monkeypatch.setattr(LazyArray, "most", 0)
    monkeypatch.setattr(LazyArray, "made", 0)
    late = {str(i): LazyArray(i) for i in range(40)}
    orbax_io.save(tmp_path / "x", late)
    assert LazyArray.made == 40
    assert LazyArray.most <= 8  # four being written, four about to be
    found = orbax_io.restore(tmp_path / "x")
    assert {name: leaf[0] for name, leaf in found.items()} == {str(i): i for i in range(40)}


def test_parts_hold_what_fits(monkeypatch):
    monkeypatch.setattr(orbax_io, "MAX_BYTES_IN_FLIGHT", 6)
    for sizes, expected in [
        ([3, 3, 3, 9, 1, 1], [[3, 3], [3], [9], [1, 1]]),
        ([9, 9], [[9], [9]]),
        ([1], [[1]]),
    ]:
        assert [sizes[part] for part in orbax_io._parts(sizes)] == expected


def test_a_failure_while_an_array_is_made_leaves_nothing(tmp_path):
    class Refused(LazyArray):
        def __array__(self, dtype=None, copy=None):
            raise InputError("beyond float16")

    params = {"a": np.zeros(3), "b": Refused(0)}
    with pytest.raises(InputError, match="^beyond float16$"):
        model_folder.write_model_folder(
            tmp_path / "out" / "x", kind="clip", config={}, params=params
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    folder = model_folder.write_model_folder(tmp_path / "x", kind="clip", config={}, params=tree())
    assert_same(model_folder.read_params(folder), tree())
    for file in (folder / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(InputError, match="params: parameters cannot be read") as caught:
        model_folder.read_params(folder)
    assert "\n" not in str(caught.value)


def test_damaged_loads_are_silent(tmp_path, capfd, monkeypatch):
    """Reads that outlived the first error each printed "Event loop is closed"."""
    printed, read = [], 0
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    leaves = {str(i): np.full((64, 64), i, np.float32) for i in range(40)}
    folder = model_folder.write_model_folder(tmp_path / "x", kind="clip", config={}, params=leaves)
    index, *_, some, most = sorted(
        (file for file in (folder / "params").rglob("d/*") if file.stat().st_size > 300),
        key=lambda file: file.stat().st_size,
    )
    for file in (index, some, most):
        data = file.read_bytes()
        for share in (0, 0.3, 0.5, 0.9):
            file.write_bytes(data[: int(len(data) * share)])
            with contextlib.suppress(InputError):  # a file may hold what nothing refers to
                model_folder.read_params(folder)
                read += 1
        file.write_bytes(data)
    assert_same(model_folder.read_params(folder), leaves)
    assert read <= 4
    gc.collect()
    assert printed == [] and capfd.readouterr().err == ""


def test_no_read_outlives_an_error():
    ended = []

    async def some_fail():
        async def late():
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append("late")
            raise OSError("late")

        async def first():
            raise OSError("first")

        await asyncio.gather(first(), late())

    with pytest.raises(OSError, match="first"):
        asyncio.run(orbax_io._all_ended(some_fail()))
    assert ended == ["late"]


def test_loading_leaks_no_objects(tmp_path):
    """TensorStore's `Spec.to_json` never frees some of what it returns, 20 objects an array."""
    orbax_io.save(tmp_path / "x", {str(i): np.zeros(3) for i in range(10)})

    def loaded(times):
        for _ in range(times):
            orbax_io.restore(tmp_path / "x")
        gc.collect()
        return len(gc.get_objects())

    before = loaded(3)
    assert loaded(10) - before < 50


def test_out_of_memory_is_not_reported_as_damage(tmp_path, monkeypatch):
    folder = model_folder.write_model_folder(
        tmp_path / "model", kind="clip", config={}, params=tree()
    )

    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr(orbax_io, "restore", exhausted)
    with pytest.raises(MemoryError):
        model_folder.read_params(folder)
