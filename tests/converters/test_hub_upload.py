"""A model to a hub and back."""

import json
import shutil
import threading

import jax
import numpy as np
import pytest
from huggingface_hub.utils import get_session
from test_hub import contents

import clip_jax
from clip_jax import model_folder
from converters import convert, hub_session, pretrained, push_to_hub
from converters.__main__ import main

REPO = "me/my-clip"
HUBS_OWN = {".gitattributes"}


@pytest.fixture
def folder(tmp_path, goldens):
    convert("ruclip", goldens / "ruclip", tmp_path / "model")
    return tmp_path / "model"


def test_there_and_back(hub, folder, tmp_path, capsys):
    evaluation = tmp_path / "digits.json"
    evaluation.write_text(json.dumps({"zero_shot": {"accuracy": 0.982}, "pictures": 167}))
    arguments = ["push-to-hub", str(folder), REPO, "--licence=mit", f"--evaluation={evaluation}"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{hub.url}/{REPO}/commit/{hub.commit(REPO)}\n"
    again = pretrained(REPO)
    assert (again / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()
    jax.tree.map(
        np.testing.assert_array_equal,
        model_folder.read_params(again),
        model_folder.read_params(folder),
    )
    assert clip_jax.load(again).config == clip_jax.load(folder).config
    assert main(["verify", str(again)]) == 0 and "all as they were" in capsys.readouterr().out
    (folder / "tokenizer.model").write_bytes(b"changed")
    assert main(["push-to-hub", str(folder), REPO]) == 2
    assert "tokenizer.model: digest differs" in capsys.readouterr().err
    shutil.copy(again / "tokenizer.model", folder)
    card = hub.repos[REPO]["README.md"].decode()
    assert card.startswith("---\n") and "license: mit\n" in card
    assert "pipeline_tag: zero-shot-image-classification\n" in card
    assert f'converters.pretrained("{REPO}")' in card
    assert f"| vision.image_size | {clip_jax.load(folder).config.vision.image_size} |" in card
    report = json.loads((folder / "report.json").read_text())
    assert report["files"][0]["sha256"] in card
    assert f"{len(report['tensors'])} tensors, {report['parameters']:,} parameters" in card
    assert "## digits" in card and "| zero_shot.accuracy | 0.982 |" in card


def test_a_newer_model_takes_the_older_ones_place(hub, folder, tmp_path):
    push_to_hub(folder, REPO)
    before = set(hub.repos[REPO])
    clip = clip_jax.load(folder)
    params = {**clip.params, "logit_scale": clip.params["logit_scale"] + 1}
    newer = clip_jax.PretrainedClip(clip.config, params, clip.processor.tokenizer)
    newer.save(tmp_path / "newer", source="a test")
    hub.repos[REPO]["notes.txt"] = b"mine"
    push_to_hub(tmp_path / "newer", REPO)
    assert "notes.txt" in hub.repos[REPO] and before - set(hub.repos[REPO])
    again = clip_jax.load(pretrained(REPO))
    assert float(again.params["logit_scale"]) == float(params["logit_scale"])
    assert "| source | a test |" in hub.repos[REPO]["README.md"].decode()


def test_the_same_files_in_a_local_folder(hub, folder, tmp_path, capsys):
    assert main(["push-to-hub", str(folder), REPO, f"--local-dir={tmp_path / 'local'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'local'}\n" and hub.log == []
    push_to_hub(folder, REPO)
    local = contents(tmp_path / "local")
    assert local == {name: hub.repos[REPO][name] for name in set(hub.repos[REPO]) - HUBS_OWN}
    assert clip_jax.load(tmp_path / "local").config == clip_jax.load(folder).config
    assert main(["push-to-hub", str(folder), REPO, f"--local-dir={tmp_path / 'local'}"]) == 2
    assert "local: already exists" in capsys.readouterr().err
    assert not (tmp_path / "local.new").exists()


def test_folders_that_cannot_be_pushed(hub, folder, tmp_path, capsys):
    def fails(*arguments: str) -> str:
        assert main(["push-to-hub", *arguments]) == 2
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1, line
        return line

    assert "not a model folder" in fails(str(tmp_path / "absent"), REPO)
    assert hub.log == []
    hub.put("me/other", {"pytorch_model.bin": bytes(99), "config.json": b"{}"})
    assert "which is no model of this package" in fails(str(folder), "me/other")
    assert "neither a published model" in fails(str(folder), "not a name/x")
    hub.faults["/preupload/main"] = 403
    line = fails(str(folder), REPO)
    assert "answered 403 Forbidden" in line and "set an HF_TOKEN that may do this" in line
    assert set(hub.repos[REPO]) == {".gitattributes"}
    (tmp_path / "broken.json").write_text("{")
    line = fails(str(folder), REPO, f"--evaluation={tmp_path}/broken.json")
    assert "broken.json: not JSON" in line


@pytest.mark.parametrize("path", ["repos/create", "preupload/main", "objects/batch", "commit/main"])
@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"[]", b"{}", b"null", b"[[[", b'{"files": 1, "objects": 1}', b"\xff\x1b[2J",
     b'{"url": 3, "files": [1], "objects": [{}], "commitUrl": "a\\nb", "commitOid": "../x"}'],
)  # fmt: skip
def test_a_hub_that_answers_uploads_wrongly(hub, folder, capsys, path, answer):
    hub.acts[path] = lambda handler, _: handler.tell(answer)
    status = main(["push-to-hub", str(folder), REPO])
    out, err = capsys.readouterr()
    if status == 0:  # an answer of which nothing is needed
        assert path == "repos/create" and out.endswith(f"/commit/{hub.commit(REPO)}\n")
    else:
        *bars, line = err.rstrip("\n").split("\n")  # bars: of what was sent before
        assert status == 2 and line.startswith("error: ") and line.isprintable(), err
        assert not [bar for bar in bars if "error" in bar or "Traceback" in bar]


@pytest.mark.parametrize("path", ["repos/create", "preupload/main", "objects/batch", "commit/main"])
def test_an_answer_to_an_upload_is_bounded(hub, folder, capsys, monkeypatch, path):
    monkeypatch.setattr(hub_session, "MAX_RESPONSE_BYTES", 10**6)
    answer = b"{}" + b" " * 10**6
    hooks = {name: list(called) for name, called in get_session().event_hooks.items()}

    def encoded(handler, _):
        headers = {"Content-Encoding": "gzip", "Content-Length": "9"}
        handler.answer(200, headers, bytes(9))

    for act, words in [
        (lambda handler, _: handler.tell(answer), "longer than 1,000,000 bytes"),
        (encoded, "an answer is encoded; expected identity"),
    ]:
        hub.acts[path] = act
        assert main(["push-to-hub", str(folder), REPO]) == 2
        assert words in capsys.readouterr().err
    hub.heal()
    assert main(["push-to-hub", str(folder), REPO]) == 0
    assert get_session().event_hooks == hooks


def test_a_hub_that_takes_an_upload_and_is_silent(hub, folder, capsys, monkeypatch):
    monkeypatch.setattr(hub_session, "READ_TIMEOUT_SECONDS", 0.1)
    released = threading.Event()
    hub.acts["repos/create"] = lambda handler, _: released.wait(60)
    assert main(["push-to-hub", str(folder), REPO]) == 2
    released.set()
    assert "cannot be reached" in capsys.readouterr().err
