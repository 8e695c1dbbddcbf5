"""The published package `rudolph`, sampling as `ruDolphApi.generate_codebooks` does."""

from __future__ import annotations

import json
import os

import torch

from benchmarks.workers.original_packages import filter_logits
from benchmarks.workers.serve import serve

TOP_K, TOP_P = 768, 0.99  # the defaults of `ruDolphApi`


class DecodeTasks:
    """Run its model with its cache as its own loop over the image does."""

    def setup(self, folder: str, batch: int, position: int) -> None:
        """folder: of the package's files. position: of the first timed code."""
        from rudolph.model import ruDolphModel

        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            arguments = json.load(file)
        self.model = ruDolphModel(device="cpu", **arguments).eval()
        weights = torch.load(os.path.join(folder, "pytorch_model.bin"), weights_only=True)
        self.model.load_state_dict(weights)
        self.left, self.specials = arguments["l_text_seq_length"], arguments["image_special_tokens"]
        length = self.left + arguments["image_tokens_per_dim"] ** 2 + arguments["r_text_seq_length"]
        self.allowed = torch.tril(torch.ones(batch, 1, length, length))
        self.ids = torch.zeros(batch, self.left + position, dtype=torch.long)
        self.ids[:, 0] = 2
        self.cache: dict = {}
        self._step(self.ids, self.cache)
        self.ids = torch.cat([self.ids, self.ids[:, -1:]], 1)

    def decode(self, repeats: int) -> None:
        ids, cache = self.ids, dict(self.cache)
        for _ in range(repeats):
            logits = filter_logits(self._step(ids, cache), TOP_K, TOP_P)
            chosen = torch.multinomial(torch.softmax(logits, -1), 1)
            ids = torch.cat([ids, chosen], 1)

    def greedy_codes(self, count: int) -> dict[str, list]:
        """Return the greedy codes of the first sample, and the logits after them."""
        ids, cache = self.ids[:1, : self.left], {}
        for _ in range(count):
            ids = torch.cat([ids, self._step(ids, cache).argmax(-1, keepdim=True)], 1)
        logits = self._step(ids, {})
        return {"codes": ids[0, self.left :].tolist(), "logits": logits[0].tolist()}

    @torch.no_grad()
    def _step(self, ids: torch.Tensor, cache: dict) -> torch.Tensor:
        allowed = self.allowed[: len(ids)]
        logits, _ = self.model(ids, allowed, cache=cache, use_cache=True)
        logits = logits[:, -1, self.model.vocab_size :].float()
        return logits[:, : -self.specials] if self.specials else logits


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tasks = DecodeTasks()
    serve({"setup": tasks.setup, "decode": tasks.decode, "greedy_codes": tasks.greedy_codes})
