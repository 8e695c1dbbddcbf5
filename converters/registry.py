"""The published models by name: their files and repositories.

Repositories and file names are those that the originals' own packages download (ruclip 0.0.2,
rudolph 0.0.1rc10, rudalle 1.1.3; sberbank-ai is called ai-forever today). Sizes and hashes come
from the hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clip_jax.config import PRESETS as CLIP_PRESETS

UTILITIES = "ai-forever/rudalle-utils"
VOCABULARY = "bpe.model"


@dataclass(frozen=True)
class PublishedModel:
    """Describe a published model.

    repos: all of its repositories.
    kind: of `api.KINDS`.
    files: name -> repository.
    preset: for files without config.json.
    Without kind and files, both are detected from the repository.
    """

    repos: tuple[str, ...]
    kind: str = ""
    files: Mapping[str, str] | None = None
    preset: str | None = None


def _files(kind: str, files: Mapping[str, str], preset: str | None = None) -> PublishedModel:
    return PublishedModel(tuple(dict.fromkeys(files.values())), kind, files, preset)


def _ruclip(repo: str) -> PublishedModel:
    return _files("ruclip", dict.fromkeys(("pytorch_model.bin", "config.json", VOCABULARY), repo))


def _decoder(kind: str, repo: str, preset: str, file: str = "pytorch_model.bin") -> PublishedModel:
    """Return a decoder's weights, with the vocabulary that all of them share."""
    return _files(kind, {file: repo, VOCABULARY: UTILITIES}, preset)


_GPT = "ai-forever/rugpt3small_based_on_gpt2"
_MALEVICH = "ai-forever/rudalle-Malevich"

PUBLISHED_MODELS: dict[str, PublishedModel] = {
    **{name: _ruclip(f"ai-forever/{name}") for name in CLIP_PRESETS if name.startswith("ruclip-")},
    "ruclip-small": _files(
        "ruclip-small",
        {"ViT-B32-small.pt": "ai-forever/ru-clip", "vocab.json": _GPT, "merges.txt": _GPT},
    ),
    **{
        name: PublishedModel((f"openai/{name}",))
        for name in CLIP_PRESETS
        if name.startswith("clip-")
    },
    "rudolph-350M": _decoder("rudolph", "shonenkov-AI/RuDOLPH-350M-v2", "350M"),
    "rudolph-350M_v1": _decoder("rudolph", "ai-forever/RuDOLPH-350M", "350M_v1"),
    "rudolph-1.3B": _decoder("rudolph", "ai-forever/RUDOLPH-1.3B", "1.3B"),
    "rudolph-2.7B": _decoder("rudolph", "ai-forever/RUDOLPH-2.7B", "2.7B"),
    "rudolph-2.7B_fbc2": _decoder("rudolph", "ai-forever/RUDOLPH-2.7B-FBC2", "2.7B_fbc2"),
    "vqgan-gumbelf8": _files("vqgan", {"vqgan.gumbelf8-sber.model.ckpt": UTILITIES}),
    "vqgan-gumbelf8-dwt": _files("vqgan", {"vqgan.gumbelf8-sber-dwt.model.ckpt": UTILITIES}),
    **{
        f"real-esrgan-x{scale}": _files(
            "real-esrgan", {f"RealESRGAN_x{scale}.pth": "ai-forever/Real-ESRGAN"}
        )
        for scale in (2, 4, 8)
    },
    "rudalle-malevich": _decoder("rudalle", _MALEVICH, "malevich", "pytorch_model_v3.bin"),
    "rudalle-malevich_v2": _decoder("rudalle", _MALEVICH, "malevich_v2", "pytorch_model_v2.bin"),
    "rudalle-emojich": _decoder("rudalle", "ai-forever/rudalle-Emojich", "malevich_v2"),
    "rudalle-surrealist": _decoder("rudalle", "shonenkov-AI/rudalle-xl-surrealist", "malevich"),
    "rudalle-kandinsky": _decoder("rudalle", "shonenkov-AI/Kandinsky", "kandinsky"),
}
