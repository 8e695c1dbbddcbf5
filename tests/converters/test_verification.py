"""`python -m converters verify`: every fault is a line, and the status tells."""

import json
import shutil

import numpy as np
import pytest

from clip_jax import digests, model_folder
from converters.__main__ import main


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=(20, 30)).astype(np.float32) for name in ("one", "two")}
    files = {"tokenizer.model": b"pieces"}
    return model_folder.write_model_folder(
        tmp_path / "model", kind="clip", config={"a": 1}, params=params, files=files
    )


@pytest.fixture
def run(capsys):
    def run(*arguments):
        capsys.readouterr()
        status = main(["verify", *map(str, arguments)])
        return status, *(text.splitlines() for text in capsys.readouterr())

    return run


def change_array(folder, name):
    content = model_folder.restore_params(folder)[name].tobytes()
    for file in (folder / "params").rglob("*"):
        if file.is_file() and content in (data := file.read_bytes()):
            file.write_bytes(data.replace(content, content[:-1] + bytes([content[-1] ^ 1])))


def test_a_whole_folder(folder, run):
    assert run(folder) == (0, ["2 arrays, 2 files, all as they were saved"], [])


def test_every_fault_is_a_line(folder, run):
    change_array(folder, "two")
    (folder / "tokenizer.model").write_bytes(b"piecez")
    status, out, err = run(folder)
    assert status == 2
    assert [line.partition(": digest differs")[0] for line in out] == [
        f"{folder}: params/two",
        f"{folder}: tokenizer.model",
        "2 arrays, 2 files, faults: 2",
    ]
    assert err == [f"error: {folder}: faults: 2; {digests.REMEDY}"]


def test_orbax_files_that_cannot_be_read(folder, run):
    (folder / "params" / "manifest.ocdbt").write_bytes(b"")
    status, out, err = run(folder)
    assert status == 2 and len(err) == 1
    assert "params: parameters cannot be read" in out[0] and "faults: 1" in out[1]
    shutil.rmtree(folder / "params")
    status, out, _ = run(folder)
    assert status == 2 and "has no params folder" in out[0]


def test_an_edit_is_recorded(folder, run):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("1", "2"))
    status, out, _ = run(folder)
    assert status == 2 and "run: python -m converters verify FOLDER --write" in out[0]
    assert run(folder, "--write") == (0, ["2 arrays, 2 files, all as they were saved"], [])
    assert run(folder) == (0, ["2 arrays, 2 files, all as they were saved"], [])
    assert json.loads((folder / "config.json").read_text())["config"] == {"a": 2}


def test_folders_of_other_kinds(tmp_path, run, monkeypatch):
    status, _, err = run(tmp_path)
    assert status == 2 and "neither a model folder nor a training run's" in err[0]
    words = model_folder.write_model_folder(
        tmp_path / "words", kind="tokenizer", config={}, params=None
    )
    assert run(words) == (0, ["0 arrays, 1 files, all as they were saved"], [])
    (words / "digests.json").unlink()
    line = f"{words}: carries no digests, as saved by an earlier version"
    assert run(words) == (0, [line], [])
