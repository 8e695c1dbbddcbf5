"""Changes to a checkpoint of RUDOLPH or ruDALL-E, for tests of what is read off it."""

import json
import shutil
from pathlib import Path

import numpy as np

from converters import rudolph_tables, rules, torch_file, torch_writer
from converters.weights import Weights
from rudolph_jax.config import RudolphConfig


def copied(golden: Path, folder: Path, without=(), **arguments) -> Path:
    """A copy of a recorded checkpoint: arguments of its config.json changed, files left out."""
    shutil.copytree(golden, folder, ignore=lambda *_: {"outputs.npz", *without})
    file = folder / "config.json"
    if file.exists():
        content = json.loads(file.read_text()) | arguments
        file.write_text(json.dumps({k: v for k, v in content.items() if v != "drop"}))
    return folder


def change_tensors(folder: Path, change) -> None:
    """change: takes name -> array and may alter it."""
    file = folder / "pytorch_model.bin"
    tensors = {name: np.array(tensor) for name, tensor in torch_file.read(file).items()}
    change(tensors)
    torch_writer.write(file, tensors)


def source_shapes(names: rudolph_tables.TensorNames, config: RudolphConfig) -> dict[str, tuple]:
    shapes = rudolph_tables.parameter_shapes(config)
    mappings = rules.resolve_rules(rudolph_tables.rules(names, config), shapes)
    return {name: mapping.source_shape for mapping in mappings for name in mapping.sources}


def shapes_alone(
    names: rudolph_tables.TensorNames, config: RudolphConfig, masks: bool = True
) -> Weights:
    """A checkpoint of any size that takes no memory but for its masks."""
    zero = np.zeros((), np.float32)
    shapes = source_shapes(names, config)
    tensors = {name: np.broadcast_to(zero, shape) for name, shape in shapes.items()}
    if masks:
        derived = rudolph_tables.derived(names)
        tensors |= {rule.source: rule.value(config) for rule in derived}
    return Weights(Path("x.bin"), tensors, {}, (Path("x.bin"),))
