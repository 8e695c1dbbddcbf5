"""Makes `archives.py` importable: pytest's importlib mode leaves sys.path alone. A hub to ask."""

import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

sys.path.append(str(Path(__file__).parent))
from hostile_hub import FILES, REPO  # noqa: E402
from loopback_hub import Hub  # noqa: E402


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", "hf_loopback")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield server
    server.stop()


@pytest.fixture
def hostile(hub, tmp_path):
    """A hub with a published model, and a user who has files beside the cache."""
    hub.put(REPO, FILES)
    for name in ("victim", "home/.ssh/key", "home/notes/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("the user's")
    yield hub
    hub.heal()
