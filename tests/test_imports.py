"""Imports go one way: clip_jax <- rudolph_jax <- experiments; converters serve users alone."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "clip_jax": set(),
    "rudolph_jax": {"clip_jax"},
    "experiments": {"clip_jax", "rudolph_jax", "converters"},
    "converters": {"clip_jax", "rudolph_jax"},
    "benchmarks": {"clip_jax", "rudolph_jax", "converters", "experiments"},
}
# Heavy or optional: never on the way of someone who only loads a model.
NOT_AT_RUN_TIME = {"torch", "transformers", "tensorflow", "gradio", "wandb", "youtokentome"}
# What takes long to import: nobody waits for it who asks for nothing of it.
WHEN_USED = {
    "clip_jax": ("orbax.checkpoint",),
    "rudolph_jax": ("orbax.checkpoint",),
    "experiments.train": ("orbax.checkpoint", "tensorflow_datasets", "grain", "huggingface_hub"),
    "converters": ("orbax.checkpoint", "huggingface_hub.hf_api", "huggingface_hub.errors"),
}


def imported(file: Path, whole_file: bool) -> set[str]:
    """Top-level packages that a file imports; whole_file: inside its functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree) if whole_file else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", [p for p in MAY_IMPORT if (ROOT / p).is_dir()])
def test_arrows(package):
    assert files(package)
    for file in files(package):
        ours = imported(file, whole_file=True) & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package] | {package}, f"{file} imports {sorted(ours)}"


@pytest.mark.parametrize("package", [p for p in MAY_IMPORT if (ROOT / p).is_dir()])
def test_optional_packages_stay_optional(package):
    for file in files(package):
        if (ROOT / "benchmarks/workers") not in file.parents:  # each in a process of its own
            assert not imported(file, whole_file=False) & NOT_AT_RUN_TIME, file


def test_config_modules_import_no_sibling_but_errors_and_types_of_fields():
    for package in ("clip_jax", "rudolph_jax"):
        file = ROOT / package / "config.py"
        if file.exists():
            text = file.read_text(encoding="utf-8")
            siblings = {line.split()[1] for line in text.splitlines()
                        if line.startswith(f"from {package}")}  # fmt: skip
            assert siblings <= {f"{package}.errors", f"{package}.config_fields"}


def test_slow_packages_are_imported_when_they_are_used():
    """Imports all in one process, where each answers for those before it too."""
    code = "import sys\n" + "".join(
        f"import {module}; print(*sys.modules)\n" for module in WHEN_USED
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for (module, slow), found in zip(WHEN_USED.items(), done.stdout.splitlines(), strict=True):
        assert not set(slow) & set(found.split()), module
        for name in slow:
            assert find_spec(name), f"{name} is called otherwise now"
