"""Full-size checkpoints convert and load in little memory. Needs 11 GB of disk and 6 GB of memory.

Each command runs in a process of its own, which reports the highest memory it had beyond what it
took once everything was imported.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from converters import rules, torch_writer
from converters.rudolph_tables import RUDOLPH, derived, parameter_shapes
from converters.rudolph_tables import rules as table
from converters.tensor_mapping import LazyArray
from rudolph_jax.config import PRESETS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account"),
]

LIMIT = 1.5e9  # bytes
PROBES = {
    "text_embedding": ("text_embeddings.weight", ""),
    "layers/23/attention/qkv_kernel": (
        "transformer.layers.23.attention.query_key_value.weight",
        "(c h k) d -> d c h k",
    ),
    "layers/0/mlp/out_kernel": ("transformer.layers.0.mlp.dense_4h_to_h.weight", "d f -> f d"),
    "head/kernel": ("to_logits.1.weight", "v d -> d v"),
}
MEASURED = """
import json, sys
def memory(which):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))
{imports}
before = memory("VmRSS")
{body}
print(json.dumps({{"peak": memory("VmHWM") - before, **found}}))
"""
CONVERT = MEASURED.format(
    imports="from converters.__main__ import main",
    body="assert main(sys.argv[1:]) == 0\nfound = {}",
)
LOAD = MEASURED.format(
    imports="import hashlib, jax, orbax.checkpoint\nfrom clip_jax import model_folder",
    body="""
folder, *probes = sys.argv[1:]
params = model_folder.read_params(folder)
found = {"bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(params)), "hashes": {}}
for probe in probes:
    leaf = params
    for key in probe.split("/"):
        leaf = leaf[key]
    found["hashes"][probe] = hashlib.sha256(leaf.view("u1")).hexdigest()
""",
)


def run(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def values(name, shape):
    """Random numbers in a repeating row of a prime length, so that no two lines are alike."""
    seed = zlib.crc32(name.encode())
    row = np.random.default_rng(seed).standard_normal(4099, np.float32)
    return np.resize(row, shape)


def write_checkpoint(file, config):
    """Write what `torch.save(model.state_dict())` would, for a model of these sizes."""
    mappings = rules.resolve_rules(table(RUDOLPH, config), parameter_shapes(config))
    shapes = {name: mapping.source_shape for mapping in mappings for name in mapping.sources}
    tensors = {
        name: LazyArray(shape, np.dtype(np.float32), partial(values, name, shape))
        for name, shape in shapes.items()
    }
    tensors |= {rule.source: rule.value(config) for rule in derived(RUDOLPH)}
    torch_writer.write(file, tensors)
    return shapes


@pytest.fixture
def room(tmp_path):
    yield tmp_path
    shutil.rmtree(tmp_path)  # pytest would keep gigabytes


@pytest.mark.parametrize(
    ("preset", "count", "dtype"),
    [
        ("350M", 354_638_656, "float32"),
        ("350M", 354_638_656, "bfloat16"),
        ("1.3B", 1_319_327_936, "float32"),
    ],
)
def test_full_size(room, preset, count, dtype):
    """Without a config: the sizes name the preset."""
    if shutil.disk_usage(room).free < 9 * count:
        pytest.skip(f"needs {9 * count / 1e9:.0f} GB of disk")
    shapes = write_checkpoint(room / "pytorch_model.bin", PRESETS[preset])
    folder = room / "ours"
    command = ["rudolph", room / "pytorch_model.bin", folder, "--dtype", dtype]
    assert run(CONVERT, *command)["peak"] < LIMIT
    (room / "pytorch_model.bin").unlink()
    report = json.loads((folder / "report.json").read_text())
    assert report["parameters"] == count
    assert report["config_from"].startswith(f"preset {preset},")

    loaded = run(LOAD, folder, *PROBES)
    assert loaded["bytes"] == count * np.dtype(dtype).itemsize
    assert loaded["peak"] < loaded["bytes"] + 4e8
    for probe, (name, pattern) in PROBES.items():
        (mapping,) = rules.resolve_rules(
            [rules.Rule(name, probe, pattern)], {probe: parameter_shapes(PRESETS[preset])[probe]}
        )
        expected = mapping.to_jax([values(name, shapes[name])]).astype(dtype, order="C")
        digest = hashlib.sha256(expected.view("u1")).hexdigest()
        assert loaded["hashes"][probe] == digest, probe
