"""The notebooks run from top to bottom, and are kept without outputs."""

import ast
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.demos.device_check import device_line

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
# In place of the cell with the tag "parameters": as little as still runs.
SMALL = {
    "draw_and_inpaint": "PICTURES, CANDIDATES = 2, 3",
    "fine_tune": "STEPS = 2",
    "ablation": "STEPS, SEEDS = 2, 1",
}


def cells(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def code(notebook):
    return ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]


def test_every_notebook_has_its_place():
    page = (ROOT / "docs/notebooks.md").read_text(encoding="utf-8")
    assert NOTEBOOKS and all(f"notebooks/{file.name}" in page for file in NOTEBOOKS)
    assert len({file.stem for file in NOTEBOOKS} & SMALL.keys()) == len(SMALL)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_kept_without_outputs_and_imports_what_exists(notebook):
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    for source in code(notebook):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] != "IPython":
                module = importlib.import_module(node.module)
                for name in node.names:
                    if not hasattr(module, name.name):  # a module of the package
                        importlib.import_module(f"{node.module}.{name.name}")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
@pytest.mark.parametrize(
    ("present", "extras"),
    [("nvidia-smi", "demo,cuda12"), ("/dev/accel0", "demo,tpu"), ("", "demo")],
)
def test_installs_what_the_device_needs(notebook, present, extras, monkeypatch):
    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == present else None)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == present)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    (source,) = (
        "".join(cell["source"])
        for cell in cells(notebook)
        if "install" in cell["metadata"].get("tags", ())
    )
    exec(source, {})
    assert [command[-1].partition(" @ ")[0] for command in commands] == [f"rudolph-jax[{extras}]"]


@pytest.mark.parametrize(
    ("platform", "capability", "advice"),
    [("tpu", None, "'bfloat16'"), ("gpu", "7.5", "'float16'"), ("gpu", "9.0", "'bfloat16'"),
     ("cpu", None, "quickstart's models")],
)  # fmt: skip
def test_the_advice_fits_the_device(platform, capability, advice, monkeypatch):
    device = SimpleNamespace(
        platform=platform, compute_capability=capability, device_kind="kind",
        memory_stats=lambda: {"bytes_limit": 16 * 2**30},
    )  # fmt: skip
    monkeypatch.setattr("jax.devices", lambda: [device])
    line = device_line()
    assert line.startswith("1 x kind, 16 GiB each: ") and advice in line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder where all of them run, so that the tiny models are made once."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_runs_from_top_to_bottom(notebook, folder, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # As where they are read: programs of eight fake devices take longer to compile.
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    monkeypatch.setenv("XLA_FLAGS", flags)
    book = nbformat.read(notebook, as_version=4)
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = SMALL[notebook.stem]
    resources = {"metadata": {"path": str(folder)}}
    done = NotebookClient(book, timeout=1200, kernel_name="python3", resources=resources).execute()
    last = [cell for cell in done.cells if cell.cell_type == "code"][-1]
    assert last.outputs
