"""Logical axes of Vqgan's parameters, by path pattern, one row for each kind of parameter.

`experiments/training/partitioning.py` maps logical axes to mesh axes: "embed" here is the output
channels of a product, "vocab" the codes. None is never split.
"""

from __future__ import annotations

CODER = r"(encoder|decoder)/"
PLACE = CODER + r"(level_\d+|middle)/"
ATTENTION = PLACE + r"attention(_\d+)?/"

AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (CODER + r"(conv_in|(down|up)sample_\d+)/kernel", (None, None, None, "embed")),
    # Three colours, or twelve wavelet coefficients, come out of the decoder's: split what goes in.
    (CODER + r"conv_out/kernel", (None, None, "embed", None)),
    (PLACE + r"block_\d+/conv_[12]/kernel", (None, None, None, "embed")),
    (PLACE + r"block_\d+/shortcut/kernel", (None, "embed")),
    (ATTENTION + r"qkv_kernel", (None, None, "embed")),
    (ATTENTION + r"qkv_bias", (None, None)),
    (ATTENTION + r"out_kernel", (None, "embed")),
    (ATTENTION + r"out_bias", (None,)),
    (r"(quant_conv|post_quant_conv)/kernel", (None, "embed")),
    (r"code_head/kernel", ("embed", "vocab")),
    (r"codebook", ("vocab", "embed")),
    (r"code_head/bias", ("vocab",)),
    (r"(quant_conv|post_quant_conv)/bias", (None,)),
    (CODER + r"(.*/)?(conv_in|conv_out|conv_[12]|shortcut|(down|up)sample_\d+)/bias", (None,)),
    (CODER + r"(.*/)?norm(_1|_2|_out)?/(scale|bias)", (None,)),
)
