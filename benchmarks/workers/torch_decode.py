"""RUDOLPH in today's PyTorch, as one would write it for speed now.

A static cache updated in place, scaled_dot_product_attention, logits of codes alone, each layer by
`torch.compile`, which compiles one program for all of them.
"""

from __future__ import annotations

import os

import torch
from torch.nn import functional as F

from benchmarks.workers.serve import serve
from clip_jax.model_folder import read_config
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import BOS, PAD, Layout
from rudolph_jax.masks import layer_mask_types, mask
from rudolph_jax.sampling import IMAGE_SAMPLING

# Modules of a layer in order of use; each has a weight and a bias.
PARTS = (
    "input_layernorm", "attention.query_key_value", "attention.dense",
    "before_first_addition_layernorm", "post_attention_layernorm", "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h", "before_second_addition_layernorm",
)  # fmt: skip
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class DecodeTasks:
    """Generate `batch` samples of one prompt."""

    def setup(
        self, folder: str, original: str, batch: int, dtype: str, position: int, compiled: bool
    ) -> None:
        """folder: ours, for its config. original: the same weights as the original has them."""
        self.config = RudolphConfig.from_dict(read_config(folder)["config"])
        self.dtype = getattr(torch, dtype)
        layout = self.layout = Layout(self.config)
        raw = torch.load(os.path.join(original, "pytorch_model.bin"), weights_only=True, mmap=True)
        self.p = {k: v.to(DEVICE, self.dtype) for k, v in raw.items() if "mask" not in k}
        self.kinds = layer_mask_types(self.config)
        self.weights = [self._layer(i) for i in range(len(self.kinds))]
        self.stop, H = layout.image.stop, self.config.heads
        shape = (batch, H, self.stop, self.config.width // H)
        self.cache = [
            [torch.zeros(shape, dtype=self.dtype, device=DEVICE) for _ in "kv"] for _ in self.kinds
        ]
        self.masks = {
            kind: torch.tensor(mask(self.config, kind)[: self.stop, : self.stop], device=DEVICE)
            for kind in set(self.kinds)
        }
        columns = layout.code_logits
        self.head = [self.p[f"to_logits.1.{x}"][columns] for x in ("weight", "bias")]
        self.left, self.position, self.batch = self.config.left_text_length, position, batch
        self.layer = torch.compile(layer, dynamic=False) if compiled else layer
        self._prompt()

    def decode(self, repeats: int) -> None:
        codes = torch.zeros(self.batch, dtype=torch.long, device=DEVICE)
        for position in range(self.position, self.position + repeats):
            logits = self._next(codes, position).float()
            top, indices = torch.topk(logits, min(IMAGE_SAMPLING.top_k, logits.shape[1]))
            total = torch.softmax(top, -1).cumsum(-1)
            dropped = F.pad(total[:, :-1] > IMAGE_SAMPLING.top_p, (1, 0))
            chosen = torch.multinomial(torch.softmax(top.masked_fill(dropped, -torch.inf), -1), 1)
            codes = indices.gather(1, chosen)[:, 0]
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def greedy_codes(self, count: int) -> dict[str, list]:
        """Return the greedy codes of the first sample, and the logits after them."""
        codes = [self._logits(self._prompt()).argmax(-1)]
        while len(codes) < count:
            codes.append(self._next(codes[-1], len(codes) - 1).argmax(-1))
        logits = self._next(codes[-1], count - 1).float()
        return {"codes": [int(step[0]) for step in codes], "logits": logits[0].tolist()}

    def _layer(self, index: int) -> list[torch.Tensor]:
        names = [f"transformer.layers.{index}.{part}.{x}" for part in PARTS
                 for x in ("weight", "bias")]  # fmt: skip
        return [self.p[name] for name in names]

    @torch.inference_mode()
    def _prompt(self) -> torch.Tensor:
        positions = torch.arange(self.left, device=DEVICE)
        ids = torch.full((self.left,), PAD, device=DEVICE)
        ids[0] = BOS
        ids = torch.where(ids == PAD, self.layout.text_pad_offset + positions, ids)
        x = self.p["text_embeddings.weight"][ids]
        x = x + self.p["l_text_pos_embeddings.weight"][: self.left]
        x = x.expand(self.batch, -1, -1)
        for i, kind in enumerate(self.kinds):
            mask = self.masks[kind][: self.left]
            x = layer(x, positions, mask, *self.cache[i], *self.weights[i])
        return x[:, -1]

    @torch.inference_mode()
    def _next(self, codes: torch.Tensor, position: int) -> torch.Tensor:
        row, column = divmod(position, self.config.image_tokens_per_side)
        x = self.p["image_embeddings.weight"][codes]
        x = x + self.p["image_row_embeddings.weight"][row]
        x = (x + self.p["image_col_embeddings.weight"][column])[:, None]
        at = torch.tensor([self.left + position], device=DEVICE)
        for i, kind in enumerate(self.kinds):
            x = self.layer(x, at, self.masks[kind][at], *self.cache[i], *self.weights[i])
        return self._logits(x[:, -1])

    @torch.inference_mode()
    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        for name in ("transformer.final_layernorm", "to_logits.0"):
            x = norm(x, self.p[name + ".weight"], self.p[name + ".bias"])
        return F.linear(x, *self.head)


def layer(x, at, mask, keys, values, *weights):
    """Apply a layer to x [B, T, D] at positions [T]; update keys, values [B, H, S, K] there."""
    (norm_a, bias_a, qkv, qkv_bias, out, out_bias, norm_b, bias_b,
     norm_c, bias_c, up, up_bias, down, down_bias, norm_d, bias_d) = weights  # fmt: skip
    B, T, D = x.shape
    y = F.linear(norm(x, norm_a, bias_a), qkv, qkv_bias)
    q, k, v = y.view(B, T, 3, keys.shape[1], -1).permute(2, 0, 3, 1, 4)
    keys.index_copy_(2, at, k)
    values.index_copy_(2, at, v)
    y = F.scaled_dot_product_attention(q, keys, values, mask)
    x = x + norm(F.linear(y.transpose(1, 2).reshape(B, T, D), out, out_bias), norm_b, bias_b)
    y = F.gelu(F.linear(norm(x, norm_c, bias_c), up, up_bias), approximate="tanh")
    return x + norm(F.linear(y, down, down_bias), norm_d, bias_d)


def norm(x, scale, bias):
    return F.layer_norm(x, x.shape[-1:], scale, bias)


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = DecodeTasks()
    serve({"setup": tasks.setup, "decode": tasks.decode, "greedy_codes": tasks.greedy_codes})
