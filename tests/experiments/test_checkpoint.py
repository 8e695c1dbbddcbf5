import dataclasses
import errno
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from clip_jax import InputError
from experiments.cli.exit_status import STORAGE, StorageError
from experiments.config.run import MeshConfig, check
from experiments.train import train
from experiments.training import partitioning
from experiments.training.checkpoint import Checkpoints, abstract_state
from experiments.training.metrics import read_metrics
from experiments.workdir.storage_errors import error_code


def make_state(mesh, spec):
    params = {
        "visual": {"kernel": jnp.arange(64.0).reshape(8, 8) / 7, "bias": jnp.ones(8)},
        "text": {"kernel": -jnp.arange(64.0).reshape(8, 8) / 3},
    }
    state = {
        "params": params,
        "opt_state": optax.adam(1e-3).init(jax.tree.map(jnp.cos, params)),
        "step": jnp.int32(4),
        "rng": jax.random.key(7),
        "skipped": jnp.int32(1),
        "ema": {"text": params["text"]},
    }

    def place(leaf):
        kind = spec if leaf.ndim == 2 else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, kind))

    return jax.tree.map(place, state)


def bits(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def assert_bit_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(bits(x), bits(y))


def mesh_of(devices, **sizes):
    return partitioning.make_mesh(MeshConfig(**sizes), jax.devices()[:devices])


EIGHT = {"devices": 8, "fsdp": 4}
SPLIT = PartitionSpec("fsdp", "tensor")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A state on a mesh of 2 x 4 x 1, and the folder that it was saved in as step 4."""
    state = make_state(mesh_of(**EIGHT), SPLIT)
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(4, state, {"seed": 3})
    return state, folder


@pytest.mark.parametrize(
    ("where", "spec"),
    [
        ({"devices": 1}, SPLIT),
        ({"devices": 4, "fsdp": 2}, SPLIT),
        ({"devices": 8, "fsdp": 2, "tensor": 2}, SPLIT),
        ({"devices": 8}, PartitionSpec()),  # as under pmap
    ],
)
def test_restores_bit_equal_on_another_mesh(saved, where, spec):
    state, folder = saved
    target = abstract_state(make_state(mesh_of(**where), spec))
    with Checkpoints(folder, read_only=True) as checkpoints:
        found = checkpoints.restore(4, target)
        assert checkpoints.read_config(4) == {"seed": 3}
    assert_bit_equal(found, state)
    kernel = found["params"]["visual"]["kernel"]
    assert kernel.sharding == target["params"]["visual"]["kernel"].sharding


def test_one_tower(saved):
    state, folder = saved
    one = NamedSharding(mesh_of(1), PartitionSpec())
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), state["params"]
    )
    with Checkpoints(folder, read_only=True) as checkpoints:
        tower = checkpoints.restore_params(4, target, ["visual/.*"])
        everything = checkpoints.restore_params(4, target)
        assert checkpoints.param_shapes(4)["visual"]["bias"].shape == (8,)
        with pytest.raises(InputError, match="pattern 'vision/.*' names no parameter; names are"):
            checkpoints.restore_params(4, target, ["vision/.*"])
        larger = {"visual": {"bias": jax.ShapeDtypeStruct((9,), "float32", sharding=one)}}
        with pytest.raises(InputError, match=r"visual/bias is \[8\]; expected \[9\]"):
            checkpoints.restore_params(4, larger)
        other = {"adapter": larger["visual"]["bias"]}
        with pytest.raises(InputError, match="adapter is no such parameter; expected"):
            checkpoints.restore_params(4, other)
    assert set(tower) == {"visual"}
    assert_bit_equal(tower["visual"], state["params"]["visual"])
    assert_bit_equal(everything, state["params"])


def test_a_folder_to_read_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no checkpoints here"):
        Checkpoints(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()


def small(step):
    return {"params": {"w": jnp.ones(4)}, "step": jnp.int32(step)}


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir())


@pytest.mark.parametrize(("best_mode", "kept"), [("highest", [2, 5, 6]), ("lowest", [3, 5, 6])])
def test_the_newest_and_the_best_are_kept(tmp_path, best_mode, kept):
    values = {1: 0.3, 2: 0.9, 3: 0.1, 4: float("nan"), 6: 0.5}
    for half in ((1, 2, 3), (4, 5, 6)):  # over a restart
        with Checkpoints(tmp_path, 2, "zero-shot:test/accuracy", best_mode) as checkpoints:
            for step in half:
                value = values.get(step)
                metrics = {} if value is None else {"zero-shot:test/accuracy": value}
                checkpoints.save(step, small(step), {}, {**metrics, "another": 7.0})
            assert checkpoints.latest_step() == half[-1]
            assert checkpoints.best_step() == kept[0]
    assert steps(tmp_path) == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best_metric": "zero-shot:test/accuracy"}, "config.evaluators, first"),
        ({"best_metric": "top1", "evaluators": ("retrieval:test",)}, "retrieval:test/..."),
        ({"best_mode": "largest"}, "highest or lowest"),
        ({"best_metric": "retrieval:test/top1", "evaluators": ("retrieval:test",),
          "evaluate_every": 2}, "one divides the other"),
        ({"watchdog_seconds": -1.0}, "config.watchdog_seconds is -1.0"),
    ],
)  # fmt: skip
def test_wishes_that_cannot_be_met(train_config, changes, message):
    with pytest.raises(InputError, match=message):
        check(dataclasses.replace(train_config, **changes))


def test_an_unfinished_save_is_never_picked_up(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, small(3), {})
    leftover = tmp_path / "5.orbax-checkpoint-tmp"
    (leftover / "params.orbax-checkpoint-tmp").mkdir(parents=True)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 3
    assert leftover.exists()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 3
        checkpoints.save(5, small(5), {})
    assert steps(tmp_path) == [3, 5]


FULL = """
import resource, sys
import jax.numpy as jnp
from experiments.training.checkpoint import Checkpoints
from experiments.cli.exit_status import exit_status

def work():
    with Checkpoints(sys.argv[1]) as checkpoints:
        checkpoints.save(1, {"params": {"w": jnp.ones(4)}, "step": jnp.int32(1)}, {})
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        # Nothing that compresses.
        large = jnp.sin(jnp.arange(1_000_000.0) ** 2)
        checkpoints.save(2, {"params": {"w": large}, "step": jnp.int32(2)}, {})

sys.exit(exit_status(work))
"""


def test_a_disk_that_takes_no_more_is_one_line_and_loses_nothing(tmp_path):
    """A limit of a file's size stands for it: the write fails in TensorStore, as on a full one."""
    folder = tmp_path / "run" / "checkpoints"
    child = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == STORAGE, child.stderr
    assert child.stderr.splitlines()[-1] == (
        f"error: {folder.parent}: cannot be written (File too large); last complete checkpoint: "
        f"{folder}/1; make room or mend it, and the same command resumes"
    )
    assert child.stderr.count("\n") == 1
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 1


def test_a_disk_that_is_full_for_metrics(train_config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("experiments.training.loop.MetricsWriter", full)
    message = r"cannot be written \(No space left on device\); last complete checkpoint: there is"
    with pytest.raises(StorageError, match=message):
        train(train_config, tmp_path)


def test_which_errors_are_the_disks():
    assert error_code(OSError(errno.ENOSPC, "full")) == errno.ENOSPC
    assert error_code(ValueError("Error writing: ... No space [os_error_code='28']")) == 28
    assert error_code(FileNotFoundError(errno.ENOENT, "no such file")) is None
    assert error_code(ValueError("shapes differ")) is None
    try:
        try:
            raise OSError(errno.EROFS, "read-only")
        except OSError as error:
            raise RuntimeError("save failed") from error
    except RuntimeError as error:
        assert error_code(error) == errno.EROFS


@pytest.mark.slow
def test_a_run_over_a_mesh_goes_on_under_pmap(train_config, tmp_path):
    """Two steps over 2 x 2 x 2 and two by pmap have the losses of four over the mesh."""
    mesh = dataclasses.replace(
        train_config, steps=4, mesh=MeshConfig(data=2, fsdp=2, tensor=2), checkpoint_every=2
    )
    train(mesh, tmp_path)
    expected = read_metrics(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    train(dataclasses.replace(mesh, mesh=MeshConfig(), parallel="pmap"), tmp_path)
    for found, wanted in zip(read_metrics(tmp_path), expected, strict=True):
        assert found["train/loss"] == pytest.approx(wanted["train/loss"], rel=1e-5)
