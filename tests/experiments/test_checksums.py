"""A restored state is the one that was saved, or restoring says what is not."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from clip_jax import InputError, orbax_io
from clip_jax.tree_checksums import checksums
from converters.__main__ import main
from experiments.training.checkpoint import Checkpoints, abstract_state

TRIALS = 12  # flips by default
CONFIG = {"seed": 3, "optim": {"learning_rate": 1e-3}}


def make_state():
    rng = np.random.default_rng(0)
    params = {
        "visual": {"kernel": rng.normal(size=(16, 24)).astype("f4"), "bias": np.ones(8, "f4")},
        "text": {"kernel": rng.normal(size=(40, 8)).astype(jnp.bfloat16)},
    }
    state = {
        "params": params,
        "opt_state": ({"mu": jax.tree.map(np.sin, params)}, {}),
        "step": np.int32(4),
        "rng": jax.random.key(7),
        "skipped": np.int32(1),
    }
    return jax.tree.map(jnp.asarray, state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A state, and the run's folder that it was saved in as step 4."""
    state, run = make_state(), tmp_path_factory.mktemp("run")
    with Checkpoints(run / "checkpoints") as checkpoints:
        checkpoints.save(4, state, CONFIG)
    return state, run


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved[1], tmp_path / "run")


def flip(file, bit):
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def read(run, state):
    """Return what resuming reads: the newest step, its config and its state, as bytes."""
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        config, found = checkpoints.read_config(step), checkpoints.restore(step, state)
    key = jax.random.key_data(found["rng"])
    leaves = jax.tree.leaves({**found, "rng": key})
    return step, config, [(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in leaves]


def assert_noticed_or_equal(run, state, flips, seed):
    """Flips bits of all files, one after the other. Returns how many were noticed."""
    rng, files, noticed = np.random.default_rng(seed), files_of(run), 0
    state = abstract_state(state)
    expected, sizes = read(run, state), np.array([file.stat().st_size for file in files])
    for _ in range(flips):
        # Half of them where most bytes are, half in any file: Orbax's small ones matter too.
        index = rng.choice(len(files), p=sizes / sizes.sum() if rng.random() < 0.5 else None)
        file, bit = files[index], int(rng.integers(8 * sizes[index]))
        flip(file, bit)
        try:
            assert read(run, state) == expected, f"bit {bit} of {file.relative_to(run)}"
        except InputError as error:
            noticed += 1
            assert "\n" not in str(error)
        flip(file, bit)
    assert read(run, state) == expected
    return noticed


def test_a_flipped_bit_is_noticed_or_harmless(copy, saved):
    assert 0 < assert_noticed_or_equal(copy, saved[0], TRIALS, seed=1) <= TRIALS


@pytest.mark.slow
def test_three_hundred_flipped_bits_are_noticed_or_harmless(copy, saved):
    noticed = assert_noticed_or_equal(copy, saved[0], 300, seed=2)
    print(f"{noticed} of 300 flips noticed, the others harmless")
    assert noticed > 100


def replace_item(run, item, state):
    """Writes an item of the checkpoint again, as if other numbers had been saved."""
    folder = run / "checkpoints" / "4" / item
    shutil.rmtree(folder)
    orbax_io.save(folder, state)


def test_a_changed_array_is_named(copy, saved, capsys):
    state = saved[0]
    params = jax.tree.map(np.array, state["params"])
    params["visual"]["kernel"].view("u4")[3, 5] ^= 1
    replace_item(copy, "params", params)
    place = f"{copy}/checkpoints/4: params/visual/kernel: checksum differs from the one recorded"
    with pytest.raises(InputError, match=place):
        read(copy, abstract_state(state))
    with Checkpoints(copy / "checkpoints", read_only=True) as checkpoints:
        target = abstract_state(state["params"])
        assert checkpoints.restore_params(4, target, ["text/.*"])["text"]["kernel"].shape == (40, 8)
        with pytest.raises(InputError, match=place):
            checkpoints.restore_params(4, target, ["visual/.*"])
    assert main(["verify", str(copy)]) == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(place) and out[1:] == ["9 arrays, 1 files, faults: 1"]


def test_a_changed_config_is_named(copy, saved, capsys):
    file = copy / "checkpoints" / "4" / "config" / "metadata"
    file.write_text(json.dumps({**CONFIG, "seed": 2}))
    with pytest.raises(InputError, match="checkpoints/4: config: checksum differs"):
        read(copy, abstract_state(saved[0]))
    assert main(["verify", str(copy / "checkpoints" / "4")]) == 2
    assert ": config: checksum differs" in capsys.readouterr().out
    file.write_text(json.dumps(CONFIG, indent=9))  # the same, however it is written
    read(copy, abstract_state(saved[0]))


def test_a_runs_tokenizer_belongs_to_its_checkpoints(tmp_path, capsys):
    file, folder = tmp_path / "tokenizer.model", tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.bind({file.name: b"pieces"}, None)
        checkpoints.save(4, make_state(), CONFIG)
    for content, whole in [(b"pieces", True), (b"piecez", False)]:
        file.write_bytes(content)
        with Checkpoints(folder, read_only=True) as checkpoints:
            if whole:
                checkpoints.bind({file.name: content}, 4)
            else:
                with pytest.raises(InputError, match="4: tokenizer.model: checksum differs"):
                    checkpoints.bind({file.name: content}, 4)
        assert main(["verify", str(tmp_path)]) == (0 if whole else 2)
        out = capsys.readouterr().out
        assert "9 arrays, 2 files" in out and ("tokenizer.model: checksum differs" in out) != whole


def test_the_switch_and_earlier_checkpoints(copy, saved, monkeypatch, capsys):
    target = abstract_state(saved[0])
    assert main(["verify", str(copy)]) == 0
    assert capsys.readouterr().out == "9 arrays, 1 files, all as they were saved\n"
    item = copy / "checkpoints" / "4" / "checksums"
    text = (item / "metadata").read_text()
    (item / "metadata").write_text(text.replace('"arrays"', '"array"'))
    with pytest.raises(InputError, match="checksums/metadata: holds no checksums"):
        read(copy, target)
    monkeypatch.setenv("RUDOLPH_JAX_VERIFY", "0")
    assert read(copy, target)[0] == 4
    monkeypatch.delenv("RUDOLPH_JAX_VERIFY")
    shutil.rmtree(item)
    assert read(copy, target)[0] == 4
    assert main(["verify", str(copy)]) == 0
    assert "checkpoints/4: carries no digests" in capsys.readouterr().out


ARRAYS = {
    "f4": np.random.default_rng(0).normal(size=(16, 24)).astype("f4"),
    "bf16": np.random.default_rng(1).normal(size=(8, 4, 6)).astype(jnp.bfloat16),
    "i1": np.arange(-128, 128, dtype="i1").reshape(8, 32),
    "bool": np.arange(32).reshape(8, 4) % 3 == 0,
    "f8": np.random.default_rng(2).normal(size=(4, 4)),
    "scalar": np.int32(7),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_any_bit_of_an_array_changes_both_halves(name):
    array = np.array(ARRAYS[name])
    before = checksums({"x": array})["x"]
    flat = array.reshape(-1).view("u1")
    bits = [0] if name == "bool" else [0, 3, 7]
    for place in {0, 1, flat.size // 2, flat.size - 1}:
        for bit in bits:
            flat[place] ^= 1 << bit
            after = checksums({"x": array})["x"]
            assert after[:8] != before[:8] and after[8:] != before[8:]
            flat[place] ^= 1 << bit
    assert checksums({"x": array})["x"] == before


def test_exchanged_rows_and_pairs_of_signs_change_a_checksum():
    array = ARRAYS["f4"]
    before = checksums({"x": array})["x"]
    turned = array.copy()
    turned[[0, 1]] = turned[[1, 0]]
    signs = array.copy()
    signs[2, 3] *= -1
    signs[7, 5] *= -1
    assert len({before, *(checksums({"x": x})["x"] for x in (turned, signs))}) == 3


@pytest.mark.parametrize("spec", [("data", "model"), ("model",), (None, "data"), ()])
def test_checksums_do_not_depend_on_sharding(spec):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    tree = {"f4": ARRAYS["f4"], "i1": ARRAYS["i1"], "rng": jax.random.key(3)}

    def place(leaf):
        chosen = PartitionSpec(*spec) if leaf.ndim == 2 else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, chosen))

    with jax.set_mesh(mesh):
        assert checksums(jax.tree.map(place, tree)) == checksums(tree)


def test_64_bits_on_a_device_are_summed_as_on_the_host():
    with jax.enable_x64(True):
        placed = {"f8": jnp.asarray(ARRAYS["f8"])}
        assert placed["f8"].dtype == np.float64 and checksums(placed) == checksums(
            {"f8": ARRAYS["f8"]}
        )
