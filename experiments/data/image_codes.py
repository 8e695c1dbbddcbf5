"""The metadata of the codes that a prepared set stores beside its images."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any

import jax
import numpy as np

from clip_jax import model_folder
from clip_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class CodeMetadata:
    """tokenizer: `tokenizer_digest`. image_size: in pixels."""

    tokenizer: str
    image_size: int
    count: int

    def check(self, folder: str, count: int, place: Any) -> None:
        """Raises InputError unless the tokenizer in `folder` would give so many, and these."""
        if self.count != count:
            raise InputError(
                f"{place}: has {self.count} codes an image (of {self.image_size} pixels); "
                f"config.model has room for {count}; prepare it again with another --image-size"
            )
        if self.tokenizer != tokenizer_digest(folder):
            raise InputError(
                f"{place}: its codes were made with another image tokenizer than {folder}; "
                "prepare it again with --vqgan, or train with that one"
            )


@functools.cache
def tokenizer_digest(folder: str) -> str:
    """Returns the same for folders of the same config and parameters, however they are stored."""
    config = dict(model_folder.read_config(folder)["config"])
    if config.get("background") is None:
        config.pop("background", None)  # folders of before the field existed have the same codes
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    leaves = jax.tree_util.tree_leaves_with_path(model_folder.read_params(folder))
    for path, leaf in sorted(leaves, key=lambda item: jax.tree_util.keystr(item[0])):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
