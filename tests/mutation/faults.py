"""Puts faults of meaning in by hand, one at a time, and sees whether the named tests fail.

    python tests/mutation/faults.py [--only=WORD]

What no tool makes: a quirk of the originals lost, a mended bug back, a mask, a task token or a unit
wrong. Each fault replaces a text of one file, in the clone that `run.py` uses; docs/faults.md lists
what noticed it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from run import MARKS, ROOT, clone

PAGE = ROOT / "docs" / "faults.md"
R, C = "tests/rudolph_jax", "tests/clip_jax"
V, X = "tests/converters", "tests/experiments"


class Fault(NamedTuple):
    """what: is wrong. before, after: a text of the file, which has it once. tests: of pytest."""

    what: str
    file: str
    before: str
    after: str
    tests: str


FAULTS = [
    # Masks
    Fault("a row mask is a token short", "rudolph_jax/masks.py",
          "causal & (query - key <= d)", "causal & (query - key < d)", f"{R}/test_masks.py"),
    Fault("a column mask is of the next column", "rudolph_jax/masks.py",
          "(query - key) % d == 0", "(query - key) % d == 1", f"{R}/test_masks.py"),
    Fault("a convolution has the whole kernel as its radius", "rudolph_jax/masks.py",
          "kernel // 2, d", "kernel, d", f"{R}/test_masks.py"),
    Fault("version 2's torus ends at the edge", "rudolph_jax/masks.py",
          'if edges == "wrap":', 'if edges == "no":', f"{R}/test_masks.py"),
    Fault("column masks are a layer late", "rudolph_jax/masks.py",
          "(layer - 1) % 4 == 0", "(layer - 2) % 4 == 0", f"{R}/test_masks.py"),
    Fault("the last layer has no convolution of its own", "rudolph_jax/masks.py",
          "layer == config.layers - 1", "layer == config.layers", f"{R}/test_masks.py"),
    Fault("an own mask sees later tokens", "rudolph_jax/masks.py",
          "causal & _own_mask", "_own_mask", f"{R}/test_masks.py"),
    # Layout
    Fault("left pads begin at the special tokens", "rudolph_jax/layout.py",
          "self.config.text_vocab_size + self.config.text_special_tokens",
          "self.config.text_vocab_size", f"{R}/test_parity.py {R}/test_model.py"),
    Fault("special tokens are one off", "rudolph_jax/layout.py",
          "return self.config.text_vocab_size + index",
          "return self.config.text_vocab_size + index - 1", f"{R}/test_tasks_parity.py"),
    Fault("codes take special logits too", "rudolph_jax/layout.py",
          "self.num_text_ids + self.config.image_vocab_size)",
          "self.vocab_size)", f"{R}/test_decode.py {R}/test_tasks.py {R}/test_sampling.py"),
    # Model
    Fault("rows and columns of image positions are exchanged", "rudolph_jax/model.py",
          "row, column = jnp.divmod", "column, row = jnp.divmod", f"{R}/test_parity.py"),
    Fault("the sandwich norm after attention is missing", "rudolph_jax/model.py",
          "self.attention_out_norm(y) if self.config.sandwich_norm else y",
          "y", f"{R}/test_parity.py"),
    Fault("the head has one norm of two", "rudolph_jax/model.py",
          "return self.head_norm(self.final_norm(x))", "return self.final_norm(x)",
          f"{R}/test_parity.py"),
    Fault("embeddings have their whole gradient", "rudolph_jax/model.py",
          "x * scale + jax.lax.stop_gradient(x) * (1 - scale)", "x", f"{R}/test_model.py"),
    Fault("masked scores are left in", "rudolph_jax/model.py",
          "jnp.where(mask, scores, MASKED_SCORE)", "jnp.where(mask, scores, scores)",
          f"{R}/test_parity.py"),
    # Loss
    Fault("left padding has no label", "rudolph_jax/loss.py",
          "ids = jnp.where(ids == PAD, layout.text_pad_offset + jnp.arange(left), ids)",
          "ids = jnp.where(ids == PAD, ids, ids)", f"{R}/test_loss.py {R}/test_parity.py"),
    Fault("right padding counts", "rudolph_jax/loss.py",
          "a_sequence = (values * labelled)", "a_sequence = (values * (labelled | True))",
          f"{R}/test_loss.py {R}/test_parity.py"),
    Fault("the legacy label is never used", "rudolph_jax/loss.py",
          "legacy = legacy_boundary_label and not layout.num_prefix_tokens", "legacy = False",
          f"{R}/test_loss.py {R}/test_parity.py"),
    Fault("weights are not divided by their sum", "rudolph_jax/loss.py",
          "return total / jnp.maximum(weight, 1e-12), losses", "return total, losses",
          f"{R}/test_loss.py {R}/test_parity.py"),
    # Sampling and scores
    Fault("top-p ends one token early", "rudolph_jax/sampling.py",
          "(probabilities * kept).sum(axis=-1) > sampling.top_p",
          "(probabilities * kept).sum(axis=-1) > sampling.top_p - 0.05",
          f"{R}/test_sampling.py"),
    Fault("top-k keeps one more", "rudolph_jax/sampling.py",
          "kept.sum(axis=-1) >= sampling.top_k", "kept.sum(axis=-1) > sampling.top_k",
          f"{R}/test_sampling.py"),
    Fault("guidance weighs the wrong prediction", "rudolph_jax/sampling.py",
          "mixed = (1 - weight) * probabilities[0] + weight * probabilities[1]",
          "mixed = weight * probabilities[0] + (1 - weight) * probabilities[1]",
          f"{R}/test_sampling.py {R}/test_tasks.py"),
    Fault("one candidate's score is NaN, as in the original", "rudolph_jax/perplexity.py",
          "return above / width if width else np.zeros_like(above)", "return above / width",
          f"{R}/test_tasks.py"),
    Fault("a text without tokens has no perplexity, as in the original",
          "rudolph_jax/perplexity.py",
          "jnp.where(count > 0, total / jnp.maximum(count, 1), 1.0)", "total / count",
          f"{R}/test_tasks.py"),
    Fault("text and image weigh the other way round", "rudolph_jax/perplexity.py",
          "scaled(text) * text_weight + scaled(image) * (1 - text_weight)",
          "scaled(image) * text_weight + scaled(text) * (1 - text_weight)",
          f"{R}/test_tasks_parity.py {R}/test_tasks.py"),
    # Tasks
    Fault("a context that is too long takes the question with it", "rudolph_jax/text_encoding.py",
          "*before[:room], *pieces, EOS", "*before, *pieces, EOS", f"{R}/test_questions.py"),
    Fault("text is not made lower case", "rudolph_jax/text_encoding.py",
          "tokenizer.encode(string.lower().strip())", "tokenizer.encode(string.strip())",
          f"{R}/test_task_tokens.py"),
    Fault("answers of image questions follow text questions' token",
          "rudolph_jax/image_to_text.py",
          '"image": ("LT_VQA", "RT_VQA")', '"image": ("LT_VQA", "RT_TQA")',
          f"{R}/test_task_tokens.py"),
    Fault("answers of text questions follow math's token", "rudolph_jax/image_to_text.py",
          '"text": ("LT_TQA", "RT_TQA")', '"text": ("LT_TQA", "RT_MQA")',
          f"{R}/test_task_tokens.py"),
    Fault("captions of many images have the token of drawing", "rudolph_jax/image_to_text.py",
          'left = np.tile(encode_left(rudolph.tokenizer, rudolph.config, "", "LT_I2T"), (rows, 1))',
          'left = np.tile(encode_left(rudolph.tokenizer, rudolph.config, "", "LT_T2I"), (rows, 1))',
          f"{R}/test_task_tokens.py"),
    # Image tokenizer
    Fault("the image tokenizer reads 0 to 1", "rudolph_jax/vqgan.py",
          "2 * images.astype(jnp.float32) - 1", "images.astype(jnp.float32)",
          f"{R}/test_vqgan_parity.py"),
    # ruCLIP
    Fault("quick GELU has 1.7 as its factor", "clip_jax/activation.py",
          "1.702 * x", "1.7 * x", f"{C}/test_activation.py {C}/test_parity.py"),
    Fault("patches are transposed", "clip_jax/model.py",
          '"BnPmQC,PQCD->BnmD"', '"BnPmQC,QPCD->BnmD"', f"{C}/test_parity.py"),
    Fault("the class token comes last", "clip_jax/model.py",
          "jnp.concatenate([jnp.broadcast_to(class_embedding, (B, 1, D)), x], axis=1)",
          "jnp.concatenate([x, jnp.broadcast_to(class_embedding, (B, 1, D))], axis=1)",
          f"{C}/test_parity.py"),
    Fault("texts see later tokens", "clip_jax/model.py",
          "make_encoder(self.config, text, self.compute, True, self.stacked)",
          "make_encoder(self.config, text, self.compute, False, self.stacked)",
          f"{C}/test_parity.py"),
    Fault("texts are pooled at their beginning", "clip_jax/model.py",
          "first_eos[:, None, None]", "0 * first_eos[:, None, None]", f"{C}/test_parity.py"),
    Fault("odd pixels are cropped on the other side", "clip_jax/image.py",
          "(w - short) // 2, (h - short) // 2", "(w - short + 1) // 2, (h - short + 1) // 2",
          f"{C}/test_image.py {C}/test_parity.py"),
    Fault("pixels are divided by 256", "clip_jax/image.py",
          "np.float32(255) - mean", "np.float32(256) - mean",
          f"{C}/test_image.py {C}/test_parity.py"),
    Fault("the loss has one direction", "clip_jax/contrastive.py",
          "return (image_loss + text_loss) / 2, metrics", "return image_loss, metrics",
          f"{C}/test_contrastive.py"),
    Fault("templates are normalised first for ruCLIP", "clip_jax/predictor.py",
          'if average == "clip":', "if True:", f"{C}/test_parity.py {C}/test_pretrained.py"),
    Fault("decoded words have no spaces between them", "clip_jax/tokenizer.py",
          '.replace(WORD_START, " ")\n        return text', '.replace(WORD_START, "")\n'
          "        return text", f"{C}/test_tokenizer.py"),
    Fault("a bias has eight times its gradient on TPUs", "clip_jax/tpu.py",
          "return sums[0]", "return sums.sum(0)", f"{C}/test_linear.py"),
    # Converters
    Fault("RUDOLPH's heads come before queries, keys and values", "converters/rudolph_tables.py",
          "(c h k) d -> d c h k", "(h c k) d -> d c h k", f"{V}/test_rudolph.py"),
    Fault("ruCLIP's heads come before queries, keys and values", "converters/clip_tables.py",
          "(c h k) d -> d c h k", "(h c k) d -> d c h k", f"{C}/test_parity.py"),
    Fault("rows and columns of patches are exchanged", "converters/clip_tables.py",
          "d rgb y x -> y x rgb d", "d rgb x y -> y x rgb d", f"{C}/test_parity.py"),
    Fault("rows and columns of convolutions are exchanged", "converters/vqgan.py",
          "o i y x -> y x i o", "o i x y -> y x i o", f"{R}/test_vqgan_parity.py"),
    Fault("even kernels of masks reach less far", "converters/rudolph.py",
          "2 * (values[name] // 2) + 1", "2 * ((values[name] - 1) // 2) + 1",
          f"{V}/test_rudolph.py {V}/test_rudolph_sizes.py"),
    # Training
    Fault("gradients of micro-batches are summed", "experiments/training/step.py",
          "lambda x: x / parts, total", "lambda x: x, total", f"{X}/test_step.py"),
    Fault("biases decay", "experiments/training/optimizer.py",
          '("bias", "scale", "class_embedding")', '("scale", "class_embedding")',
          f"{X}/test_optimizer.py"),
    Fault("the last rate is a factor, not a share", "experiments/training/schedules.py",
          "config.end_lr_factor * config.learning_rate", "config.end_lr_factor",
          f"{X}/test_schedules.py"),
    Fault("one cycle begins where it should end", "experiments/training/schedules.py",
          "between(first, peak, step / top)", "between(last, peak, step / top)",
          f"{X}/test_schedules.py"),
    Fault("biases have copies in bfloat16", "experiments/training/master_weights.py",
          "if is_matrix else master", "if master.ndim else master",
          f"{X}/test_master_weights.py"),
    # Evaluation
    Fault("ties count for the right caption", "experiments/evaluation/methods/retrieval.py",
          "(similarities >= own)", "(similarities > own)", f"{X}/test_evaluation.py"),
    Fault("recall of k is that of k + 1", "experiments/evaluation/methods/retrieval.py",
          "(self.ranks < k)", "(self.ranks <= k)", f"{X}/test_evaluation.py"),
    Fault("few shots are chosen by more images than they learn",
          "experiments/evaluation/methods/linear_probe.py",
          "min(shots, VALIDATION_SHOTS)", "VALIDATION_SHOTS", f"{X}/test_few_shot.py"),
]  # fmt: skip


def main() -> int:
    """Runs the command; 1 where a fault was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose description or file has this word")
    args = parser.parse_args()
    tree, rows, missed = clone(), [], 0
    for fault in FAULTS:
        if args.only not in fault.what + fault.file:
            continue
        noticed = try_fault(tree, fault)
        missed += not noticed
        rows.append((fault, noticed))
        print(f"{fault.file}: {fault.what}: {noticed or 'NOT NOTICED'}", flush=True)
    if not args.only:
        head = PAGE.read_text(encoding="utf-8").partition("| fault |")[0]
        table = "| fault | in | noticed by |\n|---|---|---|\n"
        table += "".join(
            f"| {fault.what} | `{fault.file}` | {noticed or '**nothing**'} |\n"
            for fault, noticed in rows
        )
        PAGE.write_text(head + table, encoding="utf-8")
    return bool(missed)


def try_fault(tree: Path, fault: Fault) -> str:
    """Returns the first test that fails with the fault in, or "" where none does."""
    file = tree / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.before) != 1:
        sys.exit(f"error: {fault.file} has {fault.before!r} {text.count(fault.before)} times; once")
    file.write_text(text.replace(fault.before, fault.after), encoding="utf-8")
    tests = [test for test in fault.tests.split() if (tree / test).exists()]
    try:
        found = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider",
             "-o", "addopts=", "--import-mode=importlib", "-m", MARKS, *tests],
            cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        file.write_text(text, encoding="utf-8")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", found.stdout, re.MULTILINE)
    if found.returncode and not failed:
        return f"`{tests[0]}` cannot be imported"
    return f"`{failed[1].partition('[')[0]}`" if failed else ""


if __name__ == "__main__":
    sys.exit(main())
