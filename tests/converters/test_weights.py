"""Finding the weights in a folder, and shards under an index."""

import json
from pathlib import Path

import numpy as np
import pytest

from clip_jax.errors import InputError
from converters import safetensors_file, torch_writer
from converters.weights import open_weights

A, B = {"a": np.arange(3.0)}, {"b": np.arange(4.0)}
INDEX = "model.safetensors.index.json"


def sharded(folder, weight_map, suffix=".safetensors"):
    write = safetensors_file.write if suffix == ".safetensors" else torch_writer.write
    write(folder / f"1{suffix}", A)
    write(folder / f"2{suffix}", B)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(tmp_path, suffix):
    folder = sharded(tmp_path, {"b": f"2{suffix}", "a": f"1{suffix}"}, suffix)
    weights = open_weights(folder, [INDEX])
    assert list(weights.tensors) == ["b", "a"]
    np.testing.assert_array_equal(weights.tensors["b"], B["b"])
    assert weights.file_of("a").name == f"1{suffix}"
    assert [path.name for path in weights.sources] == [INDEX, f"2{suffix}", f"1{suffix}"]


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"a": "1.safetensors", "b": "3.safetensors"}, "names the shard '3.safetensors'"),
        ({"a": "1.safetensors", "b": "1.safetensors"}, "1.safetensors: lacks tensor 'b'"),
        ({"b": "2.safetensors", "c": "2.safetensors"}, "2.safetensors: lacks tensor 'c'"),
        ({"b": "1.safetensors"}, "1.safetensors: has tensor 'a'"),
        ({"a": "../1.safetensors"}, "'../1.safetensors' is not the name of a file next to it"),
        ({"a": "/etc/passwd"}, "is not the name"),
        ({"a": "..\\x"}, "is not the name"),
        ({"a": ".."}, "is not the name"),
        ({"a": ""}, "is not the name"),
        ({"a": 3}, "has no weight_map"),
        (None, "has no weight_map"),
    ],
)
def test_wrong_indices(tmp_path, weight_map, expected):
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError) as caught:
        open_weights(sharded(tmp_path / "sub", weight_map), [INDEX])
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_index_that_is_no_json(tmp_path):
    (tmp_path / INDEX).write_text("{'a'")
    with pytest.raises(InputError, match="not JSON"):
        open_weights(tmp_path, [INDEX])


def test_which_file_of_a_folder(tmp_path):
    torch_writer.write(tmp_path / "x.pt", A)
    assert open_weights(tmp_path).path.name == "x.pt"
    with pytest.raises(InputError, match="holds no weights; expected m.bin or n.bin"):
        open_weights(tmp_path, ["m.bin", "n.bin"])
    torch_writer.write(tmp_path / "y.pt", B)
    with pytest.raises(InputError, match="expected one checkpoint .* found x.pt, y.pt"):
        open_weights(tmp_path)
    assert open_weights(tmp_path, ["z.pt", "y.pt", "x.pt"]).path.name == "y.pt"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts the pages of a map")
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_file_that_was_read_is_given_back(tmp_path, suffix):
    write = safetensors_file.write if suffix == ".safetensors" else torch_writer.write
    write(tmp_path / f"x{suffix}", {"a": np.ones(1 << 20, np.float32)})
    weights = open_weights(tmp_path)

    def resident():
        """Bytes of the file that count as this process's own."""
        text = Path("/proc/self/smaps").read_text()
        about = text.partition(f"/x{suffix}")[2]
        return 1024 * int(about.partition("Rss:")[2].split()[0])

    assert weights.tensors["a"].sum() == 1 << 20
    assert resident() >= 4 << 20
    weights.release("a")
    assert resident() == 0
    assert weights.tensors["a"].sum() == 1 << 20  # and still there
