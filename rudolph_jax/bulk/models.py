"""Copies of a model on devices, and what identifies a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax

from clip_jax.bulk.items import digest
from clip_jax.digests import FILE_NAME
from clip_jax.model_folder import CONFIG
from clip_jax.paths import as_path
from rudolph_jax.image_tokenizer import PretrainedVqgan
from rudolph_jax.pretrained import PretrainedRudolph


def replicas(
    rudolph: PretrainedRudolph, devices: Sequence[jax.Device] | None = None
) -> list[PretrainedRudolph]:
    """Returns a copy of the model on each device; None: all of this process."""
    devices = jax.local_devices() if devices is None else devices
    return [_on(rudolph, device) for device in devices] if len(devices) > 1 else [rudolph]


def fingerprint(folder: str | Path) -> str:
    """Identifies a model folder by its config and the digests of its arrays."""
    files = (as_path(folder) / name for name in (CONFIG, FILE_NAME))
    return digest(*(file.read_bytes() if file.exists() else b"" for file in files))


def _on(rudolph: PretrainedRudolph, device: jax.Device) -> PretrainedRudolph:
    vqgan = rudolph._vqgan
    if isinstance(vqgan, PretrainedVqgan):
        params = jax.device_put(dict(vqgan.params), device)
        vqgan = PretrainedVqgan(vqgan.config, params, vqgan.compute)
    params = jax.device_put(dict(rudolph.inference_params), device)
    return PretrainedRudolph(rudolph.config, params, rudolph._tokenizer, vqgan, rudolph.compute)
