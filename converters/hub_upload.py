"""Push a model folder to the hub, as one commit with a model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import huggingface_hub as hub

from clip_jax import model_folder
from clip_jax.errors import InputError
from clip_jax.paths import local_path
from converters.files import read_json
from converters.hub_errors import hub_errors
from converters.hub_files import Listing, fetch_listing, read_blob
from converters.hub_names import check_repository, read_commit
from converters.hub_session import bounded_responses
from converters.model_card import model_card
from converters.verification import verify

CARD = "README.md"


def push_to_hub(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    evaluations: Sequence[str | Path] = (),
    local_dir: str | Path | None = None,
) -> str:
    """Push a model folder to OWNER/NAME on the hub, and return the commit's URL.

    The repository is created if absent, private on request. An older model of this package in it is
    replaced, anything else is refused. `converters.pretrained(repo)` loads it back.

    licence, evaluations: for the model card (`model_card`).
    local_dir: a new folder to write the repository's files to; nothing is uploaded then, and the
        folder's path is returned.
    Authenticates by HF_TOKEN or `hf auth login`.
    """
    check_repository(repo)
    folder = local_path(folder, "a model to push")
    card = model_card(folder, repo, [local_path(file, "a result") for file in evaluations], licence)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not any(path.is_relative_to(folder / model_folder.PARAMS) for path in files) and (
        model_folder.read_config(folder)["kind"] != "tokenizer"
    ):
        raise InputError(f"{folder}: has no parameters; write or convert the model again")
    if faults := verify(folder).faults:
        raise InputError(faults[0])
    names = {path.relative_to(folder).as_posix(): path for path in files}
    names.pop(CARD, None)
    if local_dir is not None:
        return _write(names, card, local_path(local_dir, "the repository's files"))
    with hub_errors(repo), bounded_responses():
        api = hub.HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)
    listing = fetch_listing(repo)
    _check_ours(listing)
    stale = [
        name
        for name in listing.files
        if name.startswith(f"{model_folder.PARAMS}/") and name not in names
    ]
    operations: list[hub.CommitOperationAdd | hub.CommitOperationDelete] = [
        hub.CommitOperationAdd(CARD, card.encode()),
        *(hub.CommitOperationAdd(name, path) for name, path in names.items()),
        *(hub.CommitOperationDelete(name) for name in stale),
    ]
    with hub_errors(repo), bounded_responses():
        done = api.create_commit(
            repo, operations, commit_message="Push a model", parent_commit=listing.commit or None
        )
    # The address is made here: it is printed, and the hub's may be any text.
    return f"{hub.constants.ENDPOINT}/{repo}/commit/{read_commit(done.oid, repo)}"


def _write(names: Mapping[str, Path], card: str, place: Path) -> str:
    """Write the files and the card next to `place`, then rename the folder to it."""
    model_folder.check_destination(place)
    beside = place.with_name(f"{place.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    for name, path in names.items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, beside / name)
    (beside / CARD).write_text(card, encoding="utf-8")
    if place.is_dir():  # an empty one
        place.rmdir()
    beside.rename(place)
    return str(place)


def _check_ours(listing: Listing) -> None:
    others = set(listing.files) - {CARD, ".gitattributes"}
    if not others:
        return
    name = model_folder.CONFIG
    if name in others and set(read_json(read_blob(listing, name))) == model_folder.CONFIG_KEYS:
        return
    some = ", ".join(sorted(others)[:5])
    raise InputError(
        f"{listing.repo}: holds {some}, which is no model of this package; name a new repository"
    )
