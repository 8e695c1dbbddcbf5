"""Both models' training steps in today's PyTorch, as one would write them for speed now.

transformers' CLIPModel and a RUDOLPH with scaled_dot_product_attention, its layers by
`torch.compile`; logits only of ids that can follow; fused AdamW.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

import clip_jax
from benchmarks.workers.inputs import (
    BETAS,
    CLIP_NORM,
    EPSILON,
    MEAN,
    RATE,
    STD,
    sequences,
    texts,
    uint8_images,
)
from benchmarks.workers.serve import serve
from benchmarks.workers.torch_decode import PARTS, norm
from clip_jax.model_folder import read_config
from experiments.evaluation.methods.torch_clip import clip_model
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_mask_types, mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WEIGHTS = {"left": 1.0, "image": 7.0, "right": 1.0}  # loss weights, the original's default
Loss = Callable[[], torch.Tensor]


class TrainTasks:
    def setup(self, kind: str, folder: str, original: str, batch: int, dtype: str) -> None:
        """kind: "clip" or "rudolph". original: the same weights as the original has them. dtype:
        "float32", or "bfloat16" for autocast.
        """
        if kind == "clip":
            self.parameters, self.loss = _clip(folder, batch)
        else:
            self.parameters, self.loss = _rudolph(folder, original, batch)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True
        )
        self.cast = dtype == "bfloat16"

    def train(self, repeats: int) -> float:
        """Return the last step's loss, before its update."""
        for _ in range(repeats):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(DEVICE, torch.bfloat16, enabled=self.cast):
                loss = self.loss()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
            self.optimizer.step()
        return float(loss.detach())


def _clip(folder: str, batch: int) -> tuple[list[torch.nn.Parameter], Loss]:
    clip = clip_jax.load(folder)
    config = clip.config
    model = clip_model(clip).to(DEVICE).train()
    raw = torch.from_numpy(uint8_images(batch, config.vision.image_size)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    image = ((raw.float() / 255 - mean) / std).to(DEVICE)
    ids = texts(batch, config.text.context_length, config.text.vocab_size)
    ids, labels = torch.from_numpy(ids).to(DEVICE), torch.arange(batch, device=DEVICE)

    def loss() -> torch.Tensor:
        logits = model(input_ids=ids, pixel_values=image).logits_per_image
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    for tower in (model.vision_model, model.text_model):
        for layer in tower.encoder.layers:
            layer.compile(dynamic=False)
    return list(model.parameters()), loss


def _rudolph(folder: str, original: str, batch: int) -> tuple[list[torch.nn.Parameter], Loss]:
    config = RudolphConfig.from_dict(read_config(folder)["config"])
    layout, side = Layout(config), config.image_tokens_per_side
    raw = torch.load(os.path.join(original, "pytorch_model.bin"), weights_only=True)
    p = {k: torch.nn.Parameter(v.to(DEVICE)) for k, v in raw.items() if "mask" not in k}
    kinds = layer_mask_types(config)
    masks = {kind: torch.tensor(mask(config, kind), device=DEVICE) for kind in set(kinds)}
    layers = [
        [p[f"transformer.layers.{i}.{part}.{x}"] for part in PARTS for x in ("weight", "bias")]
        for i in range(len(kinds))
    ]
    places = {"left": layout.left, "image": layout.image, "right": layout.right}
    lengths = [places[name].stop - places[name].start for name in places]
    ids = sequences(batch, *lengths, config.text_vocab_size, config.image_vocab_size)
    left, codes, right = torch.from_numpy(ids).to(DEVICE).split(lengths, 1)
    run = torch.compile(_layer, dynamic=False)
    # The last position of the left text predicts the first code as a text id.
    labels = {
        "left": torch.cat([left[:, 1:], codes[:, :1]], 1),
        "image": codes[:, 1:],
        "right": right[:, 1:],
    }

    def embedded() -> torch.Tensor:
        place = p["image_row_embeddings.weight"][:, None] + p["image_col_embeddings.weight"]
        text = p["text_embeddings.weight"]
        return torch.cat([
            text[left] + p["l_text_pos_embeddings.weight"][: lengths[0]],
            p["image_embeddings.weight"][codes] + place.view(side * side, -1),
            text[right] + p["r_text_pos_embeddings.weight"][: lengths[2]],
        ], 1)  # fmt: skip

    def loss() -> torch.Tensor:
        x = embedded()
        scale = config.embedding_gradient_scale
        x = x * scale + x.detach() * (1 - scale)
        for kind, weights in zip(kinds, layers, strict=True):
            x = run(x, masks[kind], config.heads, *weights)
        for name in ("transformer.final_layernorm", "to_logits.0"):
            x = norm(x, p[name + ".weight"], p[name + ".bias"])
        total = sum(
            weight * _cross_entropy(x[:, places[name]], labels[name], *_columns(name))
            for name, weight in WEIGHTS.items()
        )
        return total / sum(WEIGHTS.values())

    def _columns(name: str) -> Sequence[torch.Tensor]:
        columns = layout.image_logits if name == "image" else layout.text_logits
        return [p[f"to_logits.1.{x}"][columns] for x in ("weight", "bias")]

    return list(p.values()), loss


def _cross_entropy(x, labels, weight, bias):
    logits = F.linear(x[:, : labels.shape[1]], weight, bias)
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


def _layer(x, mask, heads, *weights):
    (norm_a, bias_a, qkv, qkv_bias, out, out_bias, norm_b, bias_b,
     norm_c, bias_c, up, up_bias, down, down_bias, norm_d, bias_d) = weights  # fmt: skip
    B, T, D = x.shape
    y = F.linear(norm(x, norm_a, bias_a), qkv, qkv_bias)
    q, k, v = y.view(B, T, 3, heads, -1).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, mask)
    x = x + norm(F.linear(y.transpose(1, 2).reshape(B, T, D), out, out_bias), norm_b, bias_b)
    y = F.gelu(F.linear(norm(x, norm_c, bias_c), up, up_bias), approximate="tanh")
    return x + norm(F.linear(y, down, down_bias), norm_d, bias_d)


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = TrainTasks()
    serve({"setup": tasks.setup, "train": tasks.train})
