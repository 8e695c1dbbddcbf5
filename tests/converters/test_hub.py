"""Models by name, from a hub on the loopback interface."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from foreign import hf_folder
from huggingface_hub import constants

import clip_jax
from clip_jax import InputError, model_folder
from clip_jax.released import GROUP
from converters import KINDS, presets, pretrained
from converters.__main__ import main
from converters.registry import PUBLISHED_MODELS, PublishedModel

NAME = "ruclip-vit-base-patch32-384"
REPO = f"ai-forever/{NAME}"
ROOT = Path(__file__).parent.parent.parent


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    paths = [folder / name for name in names] or [p for p in folder.rglob("*") if p.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def ruclip(hub, goldens):
    names = ("pytorch_model.bin", "config.json", "bpe.model")
    hub.put(REPO, contents(goldens / "ruclip", *names) | {"README.md": b"a card"})
    return hub


def cached(tmp_path) -> list[str]:
    place = tmp_path / "cache" / "rudolph-jax" / "models"
    return sorted(path.name for path in place.iterdir())


def transfers(hub) -> list[str]:
    return [line for line in hub.log if line.startswith("GET /objects")]


def test_a_published_name_is_downloaded_and_converted_once(ruclip, tmp_path, goldens):
    folder = pretrained(NAME)
    assert cached(tmp_path) == [f"{NAME}--float32--{ruclip.commit(REPO)[:12]}"] == [folder.name]
    clip, expected = clip_jax.load(folder), np.load(goldens / "ruclip" / "outputs.npz")
    found = clip.encode_text(expected["input_ids"])
    np.testing.assert_allclose(found, expected["text_features"], atol=2e-5)
    origin = model_folder.read_config(folder)["provenance"]["origin"]
    assert origin == {REPO: ruclip.commit(REPO)}
    before = len(ruclip.log)
    assert pretrained(NAME) == folder
    assert ruclip.log[before:] == [f"GET /api/models/{REPO}"]
    assert not [line for line in ruclip.log if "README" in line]


def test_each_commit_and_each_dtype_has_its_own_folder(ruclip, tmp_path):
    first = pretrained(NAME)
    half = pretrained(NAME, "float16")
    ruclip.repos[REPO]["README.md"] = b"another card"
    second = pretrained(NAME)
    assert len({first, half, second}) == 3 == len(cached(tmp_path))
    assert clip_jax.load(half).params["text"]["token_embedding"].dtype == np.float16


def test_files_of_two_repositories(hub, goldens, monkeypatch):
    source = goldens / "rudolph_v2"
    hub.put("a/weights", contents(source, "pytorch_model.bin", "config.json"))
    hub.put("b/words", contents(goldens / "tokenizer", "bpe.model"))
    files = {"pytorch_model.bin": "a/weights", "config.json": "a/weights", "bpe.model": "b/words"}
    release = PublishedModel(("a/weights", "b/words"), "rudolph", files)
    monkeypatch.setitem(PUBLISHED_MODELS, "two", release)
    folder = pretrained("two")
    assert (folder / "tokenizer.model").is_file()
    assert model_folder.read_config(folder)["kind"] == "rudolph"


def test_the_first_ruclip(hub, goldens, monkeypatch):
    """Use other sizes than the published ones, so that its config.json is needed too."""
    repo = "ai-forever/ru-clip"
    hub.put(repo, contents(goldens / "ruclip_small", "ViT-B32-small.pt", "config.json"))
    files = {"ViT-B32-small.pt": repo, "config.json": repo}
    monkeypatch.setitem(
        PUBLISHED_MODELS, "ruclip-small", PublishedModel((repo,), "ruclip-small", files)
    )
    assert clip_jax.load(pretrained("ruclip-small")).kind == "ruclip-small"


@pytest.mark.parametrize("layout", ["safetensors", "safetensors-sharded"])
def test_any_transformers_clip(hub, tmp_path, small_config, layout):
    held = contents(hf_folder(tmp_path / "source", small_config, layout))
    hub.put("someone/clip", held | {"flax_model.msgpack": bytes(9000), "README.md": b""})
    folder = pretrained("someone/clip")
    assert clip_jax.load(folder).config.embed_dim == small_config.embed_dim
    assert (folder / "vocab.json").is_file()
    assert not [line for line in hub.log if "msgpack" in line]


@pytest.mark.parametrize("place", [["1"], None, 3])
def test_an_index_of_a_wrong_kind(hub, tmp_path, small_config, place):
    held = contents(hf_folder(tmp_path / "source", small_config, "safetensors-sharded"))
    name = "model.safetensors.index.json"
    held[name] = json.dumps({"weight_map": {"a": place, "b": "2"}}).encode()
    hub.put("someone/clip", held)
    with pytest.raises(InputError, match=f"{name}: has no weight_map from tensors to files"):
        pretrained("someone/clip")


def test_a_model_folder_is_returned_as_it_is(ruclip, capsys):
    folder = pretrained(NAME)
    before = len(ruclip.log)
    assert pretrained(folder) == folder
    assert main(["pretrained", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert len(ruclip.log) == before


def test_the_table_names_what_can_be_converted():
    for name, release in PUBLISHED_MODELS.items():
        if release.files is None:
            assert release.repos == (f"openai/{name}",)
            continue
        assert set(release.files.values()) == set(release.repos)
        assert release.kind in KINDS
        assert release.preset is None or release.preset in presets(release.kind)
    with_preset = [r.preset for r in PUBLISHED_MODELS.values() if r.kind == "rudolph"]
    assert with_preset == ["350M", "350M_v1", "1.3B", "2.7B", "2.7B_fbc2"]
    assert sum(release.kind == "ruclip" for release in PUBLISHED_MODELS.values()) == 6


def fails(model="", capsys=None) -> str:
    assert main(["pretrained", model or NAME]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1, line
    return line


def test_a_wrong_hash_is_found_and_not_kept(ruclip, tmp_path, capsys):
    ruclip.faults["pytorch_model.bin"] = lambda content: content[:-1] + b"!"
    line = fails(capsys=capsys)
    assert f"{REPO}: pytorch_model.bin has the hash" in line and "the hub says" in line
    assert cached(tmp_path) == []
    ruclip.faults["bpe.model"] = lambda content: content[:-1] + b"!"
    del ruclip.faults["pytorch_model.bin"]
    assert "bpe.model has the hash" in fails(capsys=capsys)
    ruclip.faults.clear()
    clip_jax.load(pretrained(NAME))


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "params/../../outside"])
def test_a_name_that_leaves_the_folder_is_refused(ruclip, capsys, name):
    ruclip.repos[REPO][name] = b""
    assert f"holds {name!r}, a path that leaves its folder" in fails(capsys=capsys)


def test_a_broken_transfer_leaves_nothing(ruclip, tmp_path, capsys):
    ruclip.faults["pytorch_model.bin"] = lambda content: content[:1000]
    assert "should be of size" in fails(capsys=capsys)
    assert cached(tmp_path) == []
    ruclip.faults.clear()
    clip_jax.load(pretrained(NAME))


def test_what_the_hub_has_not(ruclip, capsys):
    assert "has no such repository, or a private one" in fails("nobody/nothing", capsys=capsys)
    del ruclip.repos[REPO]["bpe.model"]
    assert "has no bpe.model; it holds" in fails(capsys=capsys)
    ruclip.put("some/thing", {"weights.gguf": bytes(9)})
    assert "holds weights.gguf; expected a model folder" in fails("some/thing", capsys=capsys)
    ruclip.faults[f"models/{REPO}"] = 500
    line = fails(capsys=capsys)
    assert "answered Server error '500" in line and f"{NAME} is not in the cache" in line
    assert "did you mean rudolph-350M?" in fails("rudolph-350m", capsys=capsys)
    assert "is no folder, no OWNER/NAME" in fails("./nowhere", capsys=capsys)
    assert "neither a published model" in fails("what is/this", capsys=capsys)


def test_without_a_network(ruclip, monkeypatch, tmp_path, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    there = constants.ENDPOINT
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    line = fails(capsys=capsys)
    assert f"{nowhere} cannot be reached" in line and f"{NAME} is not in the cache" in line
    monkeypatch.setattr(constants, "ENDPOINT", there)
    folder = pretrained(NAME)
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    assert pretrained(NAME) == folder
    # The hub's own cache is enough too, and what lies there is checked.
    assert pretrained(NAME, "bfloat16").name.endswith(ruclip.commit(REPO)[:12])
    blobs = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    weights = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    weights.chmod(0o644)
    weights.unlink()
    weights.write_bytes(b"damaged")
    assert main(["pretrained", NAME, "--dtype=float16"]) == 2
    assert "pytorch_model.bin has the hash" in capsys.readouterr().err


def test_offline_mode_asks_nothing(ruclip, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = fails(capsys=capsys)
    assert f"HF_HUB_OFFLINE is set, and {NAME} is not in the cache" in line
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = pretrained(NAME)
    before = len(ruclip.log)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pretrained(NAME) == folder
    assert len(ruclip.log) == before


def test_load_takes_a_published_name_and_asks_the_hub_once(ruclip, monkeypatch):
    entry = EntryPoint("converters", "converters.released:released", GROUP)
    monkeypatch.setattr("clip_jax.released.entry_points", lambda group: [entry])
    clip = clip_jax.load(NAME, dtype="bfloat16")
    assert transfers(ruclip)
    before = len(ruclip.log)
    assert clip_jax.load(NAME).content_hash == clip.content_hash
    assert len(ruclip.log) == before


def test_two_at_once_work_once(ruclip, tmp_path):
    ruclip.stalled.set()
    found = []
    threads = [threading.Thread(target=lambda: found.append(pretrained(NAME))) for _ in range(2)]
    for thread in threads:
        thread.start()
    ruclip.may_go_on.set()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 2 and len(transfers(ruclip)) == 2  # weights and vocabulary
    assert cached(tmp_path) == [found[0].name]


@pytest.mark.slow  # two processes that import JAX
def test_a_killed_process_leaves_nothing_that_the_next_one_takes(ruclip, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": ruclip.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "100",
    }  # fmt: skip
    command = [sys.executable, "-m", "converters", "pretrained", NAME]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ruclip.stalled.set()
    killed = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    assert ruclip.asked.wait(60)
    other = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    assert other.stderr.readline() == f"waiting for another process that makes {NAME}\n"
    place = tmp_path / "cache" / "rudolph-jax" / "models"
    (place / f".{NAME}--float32--0123.source").mkdir()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    ruclip.stalled.clear()
    ruclip.may_go_on.set()
    out, err = other.communicate()
    assert other.returncode == 0, err
    assert cached(tmp_path) == [Path(out.strip()).name]
    clip_jax.load(out.strip())


def test_a_wrong_dtype(hub):
    with pytest.raises(InputError, match="dtype is 'int8'; expected one of float32"):
        pretrained(NAME, "int8")
    assert json.dumps(hub.log) == "[]"
