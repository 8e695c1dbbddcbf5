"""Translates Russian prompts by a Marian translator such as OPUS-MT ru-en, whole prompts at once.

It needs the extra `torch`, and a folder with the translator's own files; nothing is downloaded.
Evaluations read what it wrote (`translations.py`) and need neither.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors

from clip_jax.errors import InputError
from clip_jax.paths import local_path
from clip_jax.text import normalize_name
from experiments.evaluation.prompts.translations import Translations, read_translations

# Of a generation config: what changes the outcome of a beam search.
SEARCH = (
    *("num_beams", "max_length", "max_new_tokens", "min_length", "length_penalty"),
    *("early_stopping", "no_repeat_ngram_size", "repetition_penalty", "renormalize_logits"),
    *("bad_words_ids", "decoder_start_token_id", "eos_token_id", "forced_eos_token_id"),
)
NEEDED = ("config.json", "source.spm", "target.spm", "vocab.json")


class Translator:
    """transformers' MarianMTModel and MarianTokenizer with the checkpoint's own beam search.

    about: what made a translation: the folder's name and hash, search settings, versions.
    """

    def __init__(self, folder: str | Path) -> None:
        """folder: as transformers saves it. Anything else there raises InputError."""
        folder = local_path(folder, "a translator")
        for name in NEEDED:
            if not (folder / name).is_file():
                raise InputError(f"{folder}: has no {name}; expected the files of a MarianMTModel")
        try:
            import torch
            import transformers
        except ImportError as error:
            raise InputError(
                f"translating needs {error.name}: pip install 'rudolph-jax[torch]'"
            ) from error
        self._torch = torch
        local = {"local_files_only": True}
        try:
            self._tokenizer = transformers.MarianTokenizer.from_pretrained(folder, **local)
            model = transformers.MarianMTModel.from_pretrained(folder, weights_only=True, **local)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{folder}: its weights are damaged or hold more than tensors, and are refused"
            ) from error
        except (
            *(OSError, ValueError, KeyError, TypeError, RuntimeError),
            safetensors.SafetensorError,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{folder}: not a Marian translator ({reason})") from error
        self._model = model.eval()
        settings = model.generation_config
        self.about: dict[str, Any] = {
            "name": folder.name,
            "sha256": _hash(folder),
            "search": {name: getattr(settings, name, None) for name in SEARCH},
            # sacremoses, where it is installed, makes punctuation uniform first.
            "versions": {name: _version(name) for name in ("transformers", "torch", "sacremoses")},
        }

    def translate(self, texts: Sequence[str]) -> list[str]:
        """A translation of each text; a text longer than the model's positions raises InputError.

        Texts of as many tokens go through together, so that nothing is padded.
        """
        encoded = [self._tokenizer(text)["input_ids"] for text in texts]
        longest = self._model.config.max_position_embeddings
        for text, ids in zip(texts, encoded, strict=True):
            if len(ids) > longest:
                raise InputError(
                    f"text {text[:40]!r} has {len(ids)} tokens; the translator takes {longest}"
                )
        found: dict[int, str] = {}
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(encoded):
            by_length.setdefault(len(ids), []).append(i)
        for places in by_length.values():
            ids = self._torch.tensor([encoded[i] for i in places])
            with self._torch.inference_mode():
                out = self._model.generate(
                    input_ids=ids, attention_mask=self._torch.ones_like(ids), do_sample=False
                )
            made = self._tokenizer.batch_decode(out, skip_special_tokens=True)
            found |= dict(zip(places, made, strict=True))
        return [found[i] for i in range(len(texts))]


def open_cache(file: Path, about: dict[str, Any]) -> Translations:
    """The translations in a file, or none yet; those of another translator raise InputError."""
    if not file.exists():
        return Translations(file, about, {})
    cached = read_translations(file)
    for key in sorted(about.keys() | cached.translator.keys()):
        if cached.translator.get(key) != about.get(key):
            raise InputError(
                f"{file}: was made with another {key}, {cached.translator.get(key)!r} and not "
                f"{about.get(key)!r}; name another --cache"
            )
    return cached


def fill_cache(
    cached: Translations,
    texts: Iterable[str],
    translate: Callable[[Sequence[str]], list[str]],
    batch_size: int,
) -> Iterator[int]:
    """Translates what is missing, a batch at a time; yields how many are new after each is saved.

    The file always holds whole batches: an interrupted run resumes with the rest.
    """
    wanted = dict.fromkeys(normalize_name(text) for text in texts)
    missing = [text for text in wanted if text not in cached.texts]
    # Longest first, so that memory that does not suffice is found out at once.
    missing.sort(key=len, reverse=True)
    made = dict(cached.texts)
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        made |= zip(batch, translate(batch), strict=True)
        Translations(cached.file, cached.translator, made).save()
        yield len(batch)


def _hash(folder: Path) -> str:
    """SHA-256 of the names and contents of the folder's files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode("utf-8") + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
