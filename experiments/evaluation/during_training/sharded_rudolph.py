"""RUDOLPH's losses of held-out pairs while it trains, over all devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from clip_jax.config import Compute
from clip_jax.image import open_image, resize_square
from experiments.evaluation.during_training.sharded_model import ShardedModel
from experiments.evaluation.methods.sequence_losses import mean_losses
from experiments.objectives.objective import Batch
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import PAD, Layout
from rudolph_jax.loss import image_loss_sums, right_text_loss_sums
from rudolph_jax.model import Rudolph
from rudolph_jax.text_encoding import encode_left, encode_right

# Of one sequence a device holds the logits, more than what an image leaves of a tower.
SEQUENCES = 8


@dataclasses.dataclass(frozen=True)
class _LossSums:
    """Sums of losses by row. encode: puts the codes of "image" into "input_ids", int32[B, T]."""

    config: RudolphConfig
    compute: Compute
    encode: Callable[[Any, Batch], Batch]

    def __call__(self, params: Any, rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        rudolph, variables = Rudolph(self.config, self.compute), {"params": params["model"]}
        image = {"input_ids": rows["drawn"], "image": rows["image"]}
        drawn = self.encode(params["codes"], image)["input_ids"]
        span = Layout(self.config).image
        captioned = rows["captioned"].at[:, span].set(drawn[:, span])

        def logits_of(ids: jax.Array) -> Callable[[slice, slice], jax.Array]:
            states = rudolph.apply(variables, ids, method="final_states")
            return lambda positions, columns: rudolph.apply(
                variables, states[:, positions], columns, method="logit_columns"
            )

        text, tokens = right_text_loss_sums(logits_of(captioned), captioned, self.config)
        return {
            "image": image_loss_sums(logits_of(drawn), drawn, self.config),
            "text": text,
            "tokens": tokens,
        }


def sharded_losses(
    model: ShardedModel, rows: Sequence[Mapping[str, Any]] | Any
) -> dict[str, float]:
    """Mean cross-entropies in nats, {"image_loss", "right_text_loss"}, as `sequence_losses`.

    rows: with an "image" and "captions" each, of which the first counts.
    """
    config, tokenizer, transform = model.config, model.tokenizer, model.batch_transform
    assert tokenizer is not None and transform is not None
    layout = Layout(config)

    def read(places: Sequence[int]) -> dict[str, np.ndarray]:
        found = [rows[place] for place in places]
        drawn = np.full((len(places), layout.sequence_length), PAD, np.int32)
        captioned = drawn.copy()
        captioned[:, layout.left] = encode_left(tokenizer, config, "", "LT_I2T")
        for i, row in enumerate(found):
            caption = row["captions"][0]
            drawn[i, layout.left] = encode_left(tokenizer, config, caption, "LT_T2I")
            captioned[i, layout.right] = encode_right(tokenizer, config, caption, "RT_I2T")
        images = [
            resize_square(open_image(row["image"]), transform.image_size, transform.image)
            for row in found
        ]
        return {"drawn": drawn, "captioned": captioned, "image": np.stack(images)}

    params = {"model": model.params, "codes": model.replicate(transform.params)}
    function = _LossSums(config, model.compute, transform.apply)
    sums = model.map_rows(function, params, len(rows), read, SEQUENCES)
    image, text, tokens = (sums[name].sum(dtype=np.float64) for name in ("image", "text", "tokens"))
    return mean_losses(np.array([[image / layout.image_length, len(rows), text, tokens]]))
