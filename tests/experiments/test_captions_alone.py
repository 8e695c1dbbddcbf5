"""The small experiment files on a prepared set of captions alone, which has no labels.

Where a default does not fit, the error proposes what does, and following it is enough.
"""

import csv
import re
import shlex

import pytest
from prepared_sources import picture

from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.train import main

FILES = ("digits", "digits_vqgan", "digits_rudolph", "emoji", "emoji_vqgan", "emoji_rudolph")
PROPOSED = re.compile(r"--config\.[\w.]+=(?:\"[^\"]*\"|[\w./]*)")


class Begins(BaseException):
    """Data, evaluators and settings are fine."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Prepares a set with a split to validate on, and one without."""
    home = tmp_path_factory.mktemp("captions")
    with (home / "list.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for i in range(12):
            (home / f"{i}.png").write_bytes(picture(i, "PNG"))
            table.writerow([f"{i}.png", f"подпись {i}"])
    prepare(SourceConfig(str(home)), home / "whole")
    prepare(SourceConfig(str(home)), home / "split", WriteConfig(validation=0.5))
    return home


@pytest.mark.parametrize("prepared", ["whole", "split"])
@pytest.mark.parametrize("file", FILES)
def test_what_an_error_proposes_is_enough(
    file, prepared, sets, tmp_path, monkeypatch, capsys, small_vqgan_folder
):
    def begins(*_):
        raise Begins

    monkeypatch.setattr("experiments.train.step_to_resume", begins)
    # The small tokenizer has other codes than the models of these files, and is only opened here.
    monkeypatch.setattr("experiments.objectives.rudolph._check_fit", lambda *_: None)
    arguments = [
        f"--config=experiments/configs/{file}.py", f"--workdir={tmp_path / 'run'}",
        f"--config.data.name={sets / prepared}",
    ]  # fmt: skip
    said = []
    for _ in range(4):
        try:
            assert main(arguments) == 2
        except Begins:
            break
        error = capsys.readouterr().err
        said.append(error)
        proposed = PROPOSED.findall(error)
        assert error.count("\n") == 1 and proposed, error
        arguments += shlex.split(proposed[0].replace("FOLDER", small_vqgan_folder))
    else:
        raise AssertionError(said)
    if file == "digits":
        assert ("has no split 'validation'" in said[0]) == (prepared == "whole")
        assert ("('retrieval:validation',)" in said[0]) == (prepared == "split")
