"""The model card of a folder, from its config, report and evaluations alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub

from clip_jax import model_folder
from clip_jax.tokenizer import FILE_NAME
from converters.files import read_json

LIBRARY = "rudolph-jax"
TITLES = {
    "clip": "a contrastive model of images and texts",
    "rudolph": "a decoder that generates images, captions, answers and texts",
    "vqgan": "an image tokenizer",
    "upscaler": "a network for super-resolution",
    "tokenizer": "a vocabulary",
}
PIPELINES = {
    "clip": "zero-shot-image-classification",
    "rudolph": "text-to-image",
    "upscaler": "image-to-image",
}
LOADERS = {
    "clip": "clip_jax.load(folder)",
    "rudolph": "rudolph_jax.load(folder, vqgan=converters.pretrained(IMAGE_TOKENIZER))",
    "vqgan": "rudolph_jax.load_vqgan(folder)",
    "upscaler": "rudolph_jax.load_upscaler(folder)",
    "tokenizer": "clip_jax.load_tokenizer(folder)",
}


def model_card(
    folder: Path, repo: str, evaluations: Sequence[Path] = (), licence: str | None = None
) -> str:
    """Return Markdown with the hub's metadata on top.

    evaluations: JSON files whose numbers are listed.
    licence: the hub's identifier.
    InputError for a folder that is no model, or an evaluation that is not JSON.
    """
    metadata = model_folder.read_config(folder)
    kind, provenance = metadata["kind"], metadata["provenance"]
    origin = provenance.get("origin", {})
    data = huggingface_hub.ModelCardData(
        base_model=list(origin) or None,
        language="ru",
        library_name=LIBRARY,
        license=licence,
        pipeline_tag=PIPELINES.get(kind),
        tags=[LIBRARY, "jax", kind],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {repo.partition('/')[2]}",
        f"This is {TITLES.get(kind, f'a model of kind {kind}')}, as a folder of {LIBRARY}.",
        _usage(kind, repo),
        "## Sizes\n\n" + _table(_flat(metadata["config"]), "of", "is"),
    ]
    if "converted_from" in provenance:
        parts.append(_conversion(folder, provenance, origin))
    elif provenance:
        parts.append("## Training\n\n" + _table(_flat(provenance), "setting", "value"))
    for file in evaluations:
        parts.append(f"## {file.stem}\n\n" + _table(_flat(read_json(file)), "of", "value"))
    return "\n\n".join(parts) + "\n"


def _usage(kind: str, repo: str) -> str:
    package = LOADERS[kind].partition(".")[0] if kind in LOADERS else "clip_jax"
    loader = LOADERS.get(kind, "clip_jax.load(folder)")
    return (
        f"```python\nimport converters\nimport {package}\n\n"
        f'folder = converters.pretrained("{repo}")\nmodel = {loader}\n```'
    )


def _conversion(folder: Path, provenance: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    lines = [f"## Conversion\n\nConverted without change from files of kind {_code(provenance)}."]
    lines += [f"- [{repo}](https://huggingface.co/{repo}), commit `{at}`" for repo, at in
              origin.items()]  # fmt: skip
    for file in provenance.get("files", ()):
        lines.append(f"- `{file['name']}`, {file['bytes']:,} bytes, SHA-256 `{file['sha256']}`")
    report = folder / model_folder.REPORT
    if report.is_file():
        found = read_json(report)
        tensors, count = len(found.get("tensors", ())), found.get("parameters", 0)
        lines.append(
            f"\n`{model_folder.REPORT}` lists all {tensors} tensors, {count:,} parameters in "
            f"{found.get('dtype')}: source, target, shape and dtype of each."
        )
    if (folder / FILE_NAME).is_file():
        lines.append(f"`{FILE_NAME}` is the vocabulary, for sentencepiece.")
    return "\n".join(lines)


def _code(provenance: Mapping[str, Any]) -> str:
    return f"`{provenance['converted_from']}`"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _table(values: Mapping[str, Any], left: str, right: str) -> str:
    rows = [f"| {_cell(name)} | {_cell(_format_value(value))} |" for name, value in values.items()]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *rows])


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
