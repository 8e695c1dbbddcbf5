"""Digests of model folders: loading names the array or file that differs from what was saved."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest

import clip_jax
from clip_jax import ClipConfig, InputError, PretrainedClip, digests, model_folder, orbax_io
from clip_jax.digests import flatten
from clip_jax.layers import unstack_layers
from clip_jax.model import abstract_params
from experiments.data.vocabulary import train_tokenizer

WORDS = ["кошка", "собака", "дом", "лес", "красный круг", "фото"]
TRIALS = 12  # flips by default


@pytest.fixture(scope="module")
def folder(small_config, tmp_path_factory):
    """Saves a model whose table has a row for each piece of its tokenizer."""
    rng = np.random.default_rng(0)
    shapes = unstack_layers(abstract_params(small_config))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    tokenizer = train_tokenizer(WORDS, small_config.text.vocab_size)
    clip = PretrainedClip(small_config, params, tokenizer)
    return clip.save(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def flip(file, bit):
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def flip_in_array(folder, name, bit):
    """Flips a bit of an array in Orbax's file; small arrays are compressed among the names."""
    content = np.asarray(flatten(model_folder.restore_params(folder))[name]).tobytes()
    (file,) = (file for file in files_of(folder) if content in file.read_bytes())
    flip(file, 8 * file.read_bytes().find(content) + bit)


def read(folder):
    """Reads whatever `clip_jax.load` reads, without its computations."""
    config = ClipConfig.from_dict(model_folder.read_config(folder)["config"])
    params = model_folder.read_params(folder)
    return config, params, clip_jax.load_tokenizer(folder).model


def assert_noticed_or_equal(folder, flips, seed):
    """Flips bits of all files, one after the other. Returns how many were noticed."""
    config, params, tokenizer = read(folder)
    rng, files, noticed = np.random.default_rng(seed), files_of(folder), 0
    sizes = np.array([file.stat().st_size for file in files])
    for _ in range(flips):
        # Half of them where most bytes are, half in any file: Orbax's small ones matter too.
        index = rng.choice(len(files), p=sizes / sizes.sum() if rng.random() < 0.5 else None)
        file, bit = files[index], int(rng.integers(8 * sizes[index]))
        where = f"bit {bit} of {file.relative_to(folder)}"
        flip(file, bit)
        try:
            found = read(folder)
        except InputError as error:
            noticed += 1
            assert "\n" not in str(error)
        else:
            assert where.split(" of ")[1].startswith("params/"), where
            assert (found[0], found[2]) == (config, tokenizer), where
            assert_same(found[1], params)
        flip(file, bit)
    return noticed


def test_a_flipped_bit_is_noticed_or_harmless(copy):
    assert 0 < assert_noticed_or_equal(copy, TRIALS, seed=1) <= TRIALS


@pytest.mark.slow
def test_seven_hundred_flipped_bits_are_noticed_or_harmless(copy):
    noticed = assert_noticed_or_equal(copy, 700, seed=2)
    print(f"{noticed} of 700 flips noticed, the others harmless")
    assert noticed > 300


def test_any_bit_of_an_array_is_noticed(copy):
    name = "text/layers/0/mlp/in_kernel"
    for bit in (0, 31, 700, 8 * 4 * 24 * 40 - 1):
        flip_in_array(copy, name, bit)
        with pytest.raises(InputError, match=f"copy: params/{name}: digest differs from the one"):
            read(copy)
        flip_in_array(copy, name, bit)
    read(copy)


def test_array_digest_is_of_bytes_in_c_order(monkeypatch):
    monkeypatch.setattr(digests, "CHUNK_BYTES", 64)
    rng = np.random.default_rng(0)
    array = rng.normal(size=(7, 5, 3)).astype(np.float32)
    plain = digests.digest_array(array)
    assert plain["digest"] == digests.xxhash.xxh3_128(array.tobytes()).hexdigest()
    turned = np.asfortranarray(array)
    assert not turned.flags.c_contiguous and digests.digest_array(turned) == plain
    assert digests.digest_array(array.reshape(7, 15)) != plain
    assert digests.digest_array(array.view(np.int32)) != plain
    assert digests.digest_array(array.transpose(1, 0, 2))["digest"] != plain["digest"]
    for scalar in (np.float32(2.5), np.asarray(2.5, ml_dtypes.bfloat16), np.asarray(True)):
        one = digests.digest_array(np.asarray(scalar))
        assert one["shape"] == [] and one["digest"] != plain["digest"]


def test_arrays_are_digested_as_they_are_written(tmp_path, monkeypatch):
    """Computes each array once; its digest equals that of the array in the file."""
    monkeypatch.setattr(orbax_io, "MAX_BYTES_IN_FLIGHT", 100)

    class Late:
        shape, dtype, made = (64,), np.dtype(np.float32), 0

        def __init__(self, value):
            self.value = value

        def __array__(self, dtype=None, copy=None):
            Late.made += 1
            return np.full(self.shape, self.value, self.dtype)

    written = orbax_io.save(tmp_path / "x", {"a": {str(i): Late(i) for i in range(9)}})
    assert Late.made == 9
    assert written == digests.digest_arrays(orbax_io.restore(tmp_path / "x"))
    assert len({about["digest"] for about in written.values()}) == 9


def test_another_models_tokenizer_is_refused(copy):
    other = train_tokenizer(["слон", "жираф", "море", "книга", "стол", "окно"], 60)
    assert other.vocab_size == clip_jax.load(copy).processor.tokenizer.vocab_size
    (copy / "tokenizer.model").write_bytes(other.model)
    message = "tokenizer.model: digest differs .* damaged or another model's"
    with pytest.raises(InputError, match=message):
        clip_jax.load(copy)
    with pytest.raises(InputError, match=message):
        clip_jax.load_tokenizer(copy)
    assert clip_jax.load_tokenizer(copy, verify=False).model == other.model


def test_tokenizer_without_digest_must_match_the_table(folder, tmp_path):
    def place(name, model, **without):
        copy = shutil.copytree(folder, tmp_path / name)
        about = json.loads((copy / "digests.json").read_text())
        del about["files"]["tokenizer.model"]
        (copy / "digests.json").write_text(json.dumps(about))
        (copy / "tokenizer.model").write_bytes(model)
        return copy

    own = (folder / "tokenizer.model").read_bytes()
    assert clip_jax.load(place("own", own)).processor.tokenizer.model == own
    smaller = train_tokenizer(WORDS, 50).model
    with pytest.raises(InputError, match="has 50 pieces, the model's table 60 rows"):
        clip_jax.load(place("smaller", smaller))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model"])
def test_missing_or_changed_file(copy, name):
    model_folder.read_params(copy)
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content + b"\n")
    with pytest.raises(InputError, match=f"copy: {name}: digest differs"):
        model_folder.read_params(copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"'{name}': is absent; digests.json lists it"):
        model_folder.read_params(copy)
    assert model_folder.read_params(copy, verify=False)


def test_added_files_are_allowed(copy):
    (copy / "README.md").write_text("mine")
    (copy / "notes.txt").write_text("mine")
    clip_jax.load(copy)


def test_missing_or_changed_digests_file(copy):
    file = copy / "digests.json"
    about = json.loads(file.read_text())
    name = "visual/projection"
    del about["arrays"][name]
    for changes, message in [
        ({"arrays": about["arrays"]}, f"params/{name}: has no digest in digests.json"),
        ({"algorithm": "md5"}, "algorithm is 'md5'; expected 'xxh3_128'; a newer version"),
        ({"arrays": []}, "are no JSON objects"),
        ({"files": {"/etc/passwd": "0"}}, "'/etc/passwd': is absent"),
        ({"files": {"../clip/config.json": "0"}}, "is absent"),
        ({"more": 1}, "holds no algorithm, arrays and files"),
    ]:
        text = file.read_text()
        edit(file, **changes)
        with pytest.raises(InputError, match=message):
            read(copy)
        file.write_text(text)
    file.unlink()
    with pytest.raises(InputError, match="has no digests.json, with which it was saved"):
        clip_jax.load(copy)


def test_an_array_of_another_size_is_not_read(copy, monkeypatch):
    about = json.loads((copy / "digests.json").read_text())["arrays"]
    about["visual/projection"]["shape"] = [4, 4]
    edit(copy / "digests.json", arrays=about)
    monkeypatch.setattr(orbax_io.ocp, "RestoreArgs", None)
    message = r"params/visual/projection: is float32\[32, 20\]; digests.json says float32\[4, 4\]"
    with pytest.raises(InputError, match=message):
        model_folder.read_params(copy)


def test_verification_can_be_disabled(copy, monkeypatch):
    flip_in_array(copy, "visual/projection", 99)
    for value, verify, refused in [
        ("", None, "RUDOLPH_JAX_VERIFY is ''; expected 0 or 1"),
        ("1", None, "digest differs"),
        ("0", None, None),
        ("0", True, "digest differs"),
        ("1", False, None),
    ]:
        monkeypatch.setenv("RUDOLPH_JAX_VERIFY", value)
        if refused is None:
            model_folder.read_params(copy, verify=verify)
        else:
            with pytest.raises(InputError, match=refused):
                model_folder.read_params(copy, verify=verify)
    clip_jax.load(copy, verify=False)


def test_folders_of_earlier_versions_load(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_io, "DIGESTED", "another")
    earlier = clip_jax.load(folder).save(tmp_path / "earlier")
    monkeypatch.undo()
    (earlier / "digests.json").unlink()
    assert_same(read(earlier)[1], read(folder)[1])
