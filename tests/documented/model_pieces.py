"""Model folders, runs, and what the originals publish, by the names that the pages give them."""

import dataclasses
import gzip
import json
import shutil
from pathlib import Path

import jax
import numpy as np
from foreign import hf_folder, openai_checkpoint
from workspace import GOLDENS, Workspace, piece

import clip_jax
import converters
import rudolph_jax
from clip_jax import PretrainedClip
from clip_jax.bulk.images import open_images
from clip_jax.bulk.run import run_bulk
from clip_jax.byte_bpe import CLIP, RUGPT3, ByteBpe
from clip_jax.index import build_index
from clip_jax.layers import unstack_layers
from clip_jax.model import abstract_params as clip_params
from converters import torch_file, torch_writer
from experiments.config.data import AugmentConfig
from experiments.configs import digits as digits_config
from experiments.data.digits_ru import NAMES, TEMPLATES
from experiments.data.vocabulary import train_tokenizer
from experiments.train import train
from rudolph_jax import PretrainedRudolph, PretrainedVqgan, RudolphConfig
from rudolph_jax.bulk.caption import CaptionTask
from rudolph_jax.generation import GenerationConfig
from rudolph_jax.model import abstract_params
from rudolph_jax.sampling import TEXT_SAMPLING
from rudolph_jax.vqgan import init_params

# Model folders, of random or hardly trained parameters


@piece("models/ruclip", "models/ruclip-vit-base-patch16-384", "runs/mine/model",
       "runs/quickstart-emoji/ruclip/model")  # fmt: skip
def ruclip(space: Workspace, place: Path) -> None:
    converters.convert("ruclip", GOLDENS / "ruclip", place)


@piece("photos.index")
def photos_index(space: Workspace, place: Path) -> None:
    build_index(clip_jax.load(space.get("models/ruclip")), space.get("photos"), place)


@piece("captions")
def captions(space: Workspace, place: Path) -> None:
    model = rudolph_jax.load(space.get("models/rudolph"), space.get("models/vqgan"))
    task = CaptionTask(model, GenerationConfig(TEXT_SAMPLING))
    run_bulk(
        task, open_images(space.get("photos")), place, {"command": "caption"}, piece_items=8
    )


@piece("runs/quickstart/ruclip/model")
def quickstart_ruclip(space: Workspace, place: Path) -> None:
    """Makes a model of the sizes of configs/digits.py, as `table.SMALL` changes them."""
    config = digits_config.train_config().model
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, layers=1, width=16),
        text=dataclasses.replace(config.text, layers=1, width=16),
    )
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (random.normal(size=leaf.shape) * 0.1).astype(np.float32),
        unstack_layers(clip_params(config)),
    )
    captions = [template.format(name) for template in TEMPLATES for name in NAMES]
    tokenizer = train_tokenizer(captions, config.text.vocab_size)
    PretrainedClip(config, params, tokenizer).save(place)


@piece("models/clip-b16")
def clip_b16(space: Workspace, place: Path) -> None:
    folder = space.get("openai_folder")
    converters.convert(
        "openai-clip", folder / "ViT-B-16.pt", place,
        vocabulary=folder / "bpe_simple_vocab_16e6.txt.gz",
    )  # fmt: skip


@piece("models/ruclip-small")
def ruclip_small(space: Workspace, place: Path) -> None:
    converters.convert("ruclip-small", space.get("ruclip_small_files"), place)


@piece("models/rudolph", "runs/quickstart/rudolph/model", "runs/sberquad/model")
def rudolph(space: Workspace, place: Path) -> None:
    config = RudolphConfig(
        left_text_length=16, image_tokens_per_side=2, right_text_length=8, text_vocab_size=700,
        image_vocab_size=17, width=8, layers=1, heads=2, text_special_tokens=8,
    )  # fmt: skip
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32),
        unstack_layers(abstract_params(config)),
    )
    converters.convert("youtokentome", GOLDENS / "tokenizer", place.with_name("words"))
    tokenizer = clip_jax.load_tokenizer(place.with_name("words"))
    PretrainedRudolph(config, params, tokenizer).save(place)


@piece("models/vqgan", "runs/quickstart/vqgan/model")
def vqgan(space: Workspace, place: Path) -> None:
    config = dataclasses.replace(
        rudolph_jax.VQGAN_PRESETS["tiny"], channels=4, latent_channels=4, codebook_size=17,
        channel_multipliers=(1, 1), norm_groups=2,
    )  # fmt: skip
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    PretrainedVqgan(config, params).save(place)


@piece("models/x4")
def upscaler(space: Workspace, place: Path) -> None:
    converters.convert("real-esrgan", GOLDENS / "real_esrgan_x4/RealESRGAN_x4.pth", place)


# What the originals publish


@piece("ruclip_files")
def ruclip_files(space: Workspace, place: Path) -> None:
    place.mkdir()
    for name in ("pytorch_model.bin", "config.json", "bpe.model"):
        shutil.copy(GOLDENS / "ruclip" / name, place)


@piece("training_checkpoint")
def training_checkpoint(space: Workspace, place: Path) -> None:
    """The weights in an entry of the file, as a training program saves an average."""
    ruclip_files(space, place)
    file = place / "pytorch_model.bin"
    tensors = {name: np.array(tensor) for name, tensor in torch_file.read(file).items()}
    file.unlink()
    torch_writer.write(file, tensors, under="model_ema")


@piece("distilled_checkpoint")
def distilled_checkpoint(space: Workspace, place: Path) -> None:
    """The weights below `student.`, and a teacher's beside them."""
    ruclip_files(space, place)
    file = place / "pytorch_model.bin"
    tensors = {name: np.array(tensor) for name, tensor in torch_file.read(file).items()}
    file.unlink()
    both = {f"{owner}.{n}": t for owner in ("student", "teacher") for n, t in tensors.items()}
    torch_writer.write(file, both)


@piece("ruclip_small_files")
def ruclip_small_files(space: Workspace, place: Path) -> None:
    """Writes a checkpoint with a vocabulary, and as many rows of the text table."""
    shutil.copytree(GOLDENS / "ruclip_small", place)
    tokenizer = ByteBpe(*space.byte_vocabulary(RUGPT3))
    for name, content in tokenizer.files.items():
        (place / name).write_bytes(content)
    file = place / "ViT-B32-small.pt"
    tensors = {name: np.array(tensor) for name, tensor in torch_file.read(file).items()}
    rows = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 64)) * 0.02
    tensors["text_encoder.model.wte.weight"] = rows.astype(np.float32)
    file.unlink()
    torch_writer.write(file, tensors)
    config = json.loads((place / "config.json").read_text())
    config["text"]["vocab_size"] = tokenizer.vocab_size
    (place / "config.json").write_text(json.dumps(config))


@piece("openai_folder")
def openai_folder(space: Workspace, place: Path) -> None:
    """Weights, a config that tells their activation, and a vocabulary of as many rows."""
    place.mkdir()
    vocabulary, merges = space.byte_vocabulary(CLIP)
    openai_checkpoint(place / "ViT-B-16.pt", len(vocabulary))
    towers = {
        "embed_dim": 20,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 12, "vocab_size": len(vocabulary), "width": 64, "heads": 1,
            "layers": 1,
        },
    }  # fmt: skip
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers}))
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    (place / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(text.encode()))


@piece("ViT-B-16.pt")
def torch_script(space: Workspace, place: Path) -> None:
    shutil.copy(GOLDENS / "openai_clip_vit/model.pt", place)


@piece("weights.pt")
def weights(space: Workspace, place: Path) -> None:
    """A state dict alone, which does not tell its activation."""
    tensors = torch_file.read(GOLDENS / "openai_clip_vit/model.pt")
    tensors = {n: np.array(t) for n, t in tensors.items() if t.ndim or n == "logit_scale"}
    torch_writer.write(place, tensors)


@piece("bpe.model")
def bpe(space: Workspace, place: Path) -> None:
    shutil.copy(GOLDENS / "tokenizer/bpe.model", place)


@piece("vqgan.gumbelf8-sber.model.ckpt")
def vqgan_checkpoint(space: Workspace, place: Path) -> None:
    shutil.copy(GOLDENS / "vqgan/vqgan.model.ckpt", place)


@piece("RealESRGAN_x4.pth")
def real_esrgan_checkpoint(space: Workspace, place: Path) -> None:
    shutil.copy(GOLDENS / "real_esrgan_x4/RealESRGAN_x4.pth", place)


@piece("hf_files")
def hf_files(space: Workspace, place: Path) -> None:
    hf_folder(place, space.small_config)


@piece("rudolph_files")
def rudolph_files(space: Workspace, place: Path) -> None:
    shutil.copytree(GOLDENS / "rudolph_v2", place)


@piece("rudalle_files")
def rudalle_files(space: Workspace, place: Path) -> None:
    shutil.copytree(GOLDENS / "rudalle_v3", place)



@piece("runs/cats")
def runs_cats(space: Workspace, place: Path) -> None:
    """A run of 400 steps with averages and a best step."""
    config = digits_config.train_config()
    small = space.small_config
    model = dataclasses.replace(
        small,
        vision=dataclasses.replace(small.vision, image_size=8, layers=1),
        text=dataclasses.replace(small.text, vocab_size=128, layers=1),
    )
    data = dataclasses.replace(
        config.data, directory=str(space.get("runs/data")), split="test", batch_size=8,
        augment=AugmentConfig(),
    )  # fmt: skip
    optim = dataclasses.replace(config.optim, ema=0.9)
    config = dataclasses.replace(
        config, model=model, data=data, optim=optim, steps=400, checkpoint_every=200,
        evaluate_every=200, best_metric="zero-shot:validation/accuracy", log_every=200,
    )  # fmt: skip
    train(config, place, jax.devices()[:1])
