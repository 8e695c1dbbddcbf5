"""Building the built-in sets: once, whole or not at all, and without TensorFlow."""

import subprocess
import sys

import pytest

from clip_jax.errors import InputError
from experiments.data.builders import BUILDERS, DigitsRu
from experiments.data.source import BUILTIN_SETS, build_builtin_set


def test_every_set_has_a_builder():
    assert set(BUILTIN_SETS) == set(BUILDERS)


def test_prepare_is_idempotent_and_quiet(data_directory, capfd):
    folder = build_builtin_set("digits_ru", data_directory)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert build_builtin_set("digits_ru", data_directory) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert capfd.readouterr().out == ""


def test_an_interrupted_build_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    def fail(self, split):
        yield from ()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DigitsRu, "_generate_examples", fail)
        with pytest.raises(KeyboardInterrupt):
            build_builtin_set("digits_ru", tmp_path)
    assert not (tmp_path / "digits_ru" / "1.0.0").exists()
    assert (build_builtin_set("digits_ru", tmp_path) / "dataset_info.json").exists()


def test_two_builds_are_equal_byte_for_byte(data_directory, tmp_path):
    first, second = (build_builtin_set("digits_ru", path) for path in (data_directory, tmp_path))
    shards = sorted(file.name for file in first.glob("*.array_record*"))
    assert len(shards) == 3
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in shards)


def test_unknown_name(tmp_path):
    with pytest.raises(InputError, match="'mnist' is unknown; expected one of digits_ru, emoji_ru"):
        build_builtin_set("mnist", tmp_path)


def test_tensorflow_is_never_imported(tmp_path):
    code = (
        "import sys; from experiments.data.source import build_builtin_set, Split;"
        f" split = Split(build_builtin_set('digits_ru', {str(tmp_path)!r}), 'test');"
        " split[0]; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
