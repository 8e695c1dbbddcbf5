"""Wrong RUDOLPH checkpoints on the command line: exit code 2, one line, nothing written."""

import shutil

import numpy as np
import pytest
from decoders import change_tensors, copied

from converters.__main__ import main

CONV, LAST = "transformer.conv_mask", "transformer.last_conv_mask"
NORM = "transformer.layers.3.before_first_addition_layernorm.bias"


@pytest.fixture
def fails(tmp_path, capsys):
    def run(*arguments, expected):
        destination = tmp_path / "out" / "model"
        assert main(["rudolph", *map(str, arguments), str(destination)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        for part in expected if isinstance(expected, tuple) else (expected,):
            assert part in captured.err
        left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
        assert left == []

    return run


@pytest.fixture
def source(tmp_path, goldens):
    def copy(name="rudolph_v1", **changes):
        return copied(goldens / name, tmp_path / "source", **changes)

    return copy


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_sizes": 3}, "unknown 'hidden_sizes'"),
        ({"num_layers": "drop"}, "missing 'num_layers'"),
        ({"attention_dropout_prob": "drop"}, "missing 'attention_dropout_prob'"),
        ({"hidden_size": "48"}, "hidden_size is '48'; expected int"),
        ({"num_layers": True}, "num_layers is True; expected int"),
        ({"cogview_pb_relax": 1}, "cogview_pb_relax is 1; expected bool"),
        ({"attention_dropout_prob": None}, "attention_dropout_prob is None; expected float"),
        ({"attention_dropout_prob": 1.5}, "attention_dropout is 1.5"),
        ({"num_attention_heads": 5}, "width is 48, not a multiple of heads (5)"),
        ({"mlp_activation": "relu"}, "mlp_activation is 'relu'; expected one of gelu_jit, gelu"),
        ({"r_text_seq_length": 0}, "r_text_seq_length is 0; expected a positive integer"),
        ({"vocab_size": 6}, "text_vocab_size is 0; expected a positive integer"),
        ({"text_special_tokens": -1}, "text_special_tokens is -1"),
    ],
)
def test_config(fails, source, changes, expected):
    fails(source(**changes), expected=("config.json: ", expected))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_layers": 4}, "tensor 'transformer.layers.4."),
        ({"num_layers": 6}, "tensor 'transformer.layers.5."),
        ({"hidden_size": 51}, "has shape [48]; config.json asks for [51]"),
        ({"vocab_size": 207}, "has shape [270]; config.json asks for [271]"),
        ({"image_special_tokens": 1}, "has shape [270]; config.json asks for [271]"),
        ({"r_text_seq_length": 8}, "'r_text_pos_embeddings.weight' has shape [8, 48]"),
        ({"l_text_seq_length": 7}, "'l_text_pos_embeddings.weight' has shape [7, 48]"),
        ({"image_tokens_per_dim": 4}, "embeddings.weight' has shape [3, 48]"),
        ({"cogview_sandwich_layernorm": False}, "_layernorm.weight' is surplus; config.json"),
        ({"kernel_size": 5}, "mask buffers contradict config.json: they say kernel_size 3, not 5"),
        ({"last_kernel_size": 3}, "they say last_kernel_size 5, not 3"),
    ],
)
def test_a_config_that_contradicts_the_tensors(fails, source, changes, expected):
    fails(source(**changes), expected=("pytorch_model.bin: ", expected))


def test_a_kernel_that_spans_the_picture_is_any_such_kernel(tmp_path, source):
    """Side 3: a kernel of 5 sees all, as do those beyond it."""
    assert main(["rudolph", str(source(last_kernel_size=11)), str(tmp_path / "ours")]) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop(NORM), f"tensor '{NORM}' is missing; config.json asks for it"),
        (lambda t: t.update(extra=np.zeros(3)), "tensor 'extra' is surplus; config.json leaves no"),
        (
            lambda t: t[CONV].__setitem__((12, 4), ~t[CONV][12, 4]),
            f"tensor '{CONV}' is bool[22, 22]; config.json asks for bool[22, 22], and they differ "
            "in 1 of 484 places",
        ),
        (
            lambda t: t.update({"transformer.row_mask": t["transformer.col_mask"]}),
            "tensor 'transformer.row_mask' is bool[22, 22]; config.json asks for",
        ),
        (
            lambda t: t.update({LAST: t[LAST][:21, :21]}),
            f"tensor '{LAST}' is bool[21, 21]; config.json asks for bool[22, 22]",
        ),
        (
            lambda t: t.update({LAST: t[LAST] * np.float32(0.5)}),
            f"tensor '{LAST}' is float32[22, 22]; config.json asks for bool[22, 22], and they",
        ),
    ],
)
def test_tensors_that_do_not_belong(fails, source, change, expected):
    folder = source()
    change_tensors(folder, change)
    fails(folder, expected=("pytorch_model.bin: ", expected))


def test_without_a_config(fails, source):
    folder = source(without=["config.json"])
    sizes = "width 48, layers 5, left_text_length 6, image_tokens_per_side 3, right_text_length 7"
    expected = ("no published model has its sizes", sizes, "kernel_size 3, last_kernel_size 5")
    fails(folder, expected=(*expected, "add config.json", "--preset 350M_v1, 350M, 1.3B"))


def test_presets(fails, source, goldens):
    expected = "config.json: contradicts --preset 350M: it says left_text_length 6, not 64"
    fails("--preset", "350M", goldens / "rudolph_v1", expected=expected)
    folder = source(without=["config.json"])
    expected = "has shape [48]; --preset 350M asks for [1024]"
    fails("--preset", "350M", folder, expected=expected)


def test_preset_and_mask_buffers(fails, source, goldens, monkeypatch):
    """A model of the preset's sizes with other kernels."""
    from rudolph_jax.config import PRESETS
    from rudolph_jax.config import RudolphConfig as Config

    config = Config(6, 3, 7, 200, 64, 48, 5, 3, kernel_size=3, last_kernel_size=3)
    monkeypatch.setitem(PRESETS, "350M", config)
    folder = source(without=["config.json"])
    expected = "contradict --preset 350M: they say last_kernel_size 5, not 3"
    fails("--preset", "350M", folder, expected=expected)


def test_presets_are_for_those_that_know_them(tmp_path, goldens, capsys):
    for kind in ("ruclip", "rudolph"):
        command = [kind, "--preset", "malevich", str(goldens / "ruclip"), str(tmp_path / "out")]
        assert main(command) == 2
    assert "invalid choice: 'malevich'" in capsys.readouterr().err


def test_other_kinds(fails, goldens, tmp_path):
    fails(goldens / "ruclip", expected=("not rudolph", "a CLIP under OpenAI's names"))
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", expected=("expected one checkpoint", "found none"))
    fails(tmp_path / "absent", expected="absent: does not exist")


def test_a_vocabulary_that_does_not_fit(fails, source, goldens):
    folder = source()
    shutil.copy(goldens / "tokenizer" / "bpe.model", folder)
    expected = "bpe.model: the vocabulary has 700 pieces; config.json leaves room for 200"
    fails(folder, expected=expected)


def test_a_vocabulary_with_other_special_ids(fails, source, goldens):
    folder = source("rudolph_v2")
    text = (goldens / "tokenizer" / "bpe.model").read_text()
    (folder / "bpe.model").write_text(text.replace("1 0 2 3\n", "0 1 2 3\n"))
    fails(folder, expected="UNK, PAD, BOS, EOS are (0, 1, 2, 3); expected (1, 0, 2, 3)")


def test_a_number_beyond_float16(fails, source):
    """Found only while the parameters are being written."""
    folder = source()
    change_tensors(folder, lambda t: t["to_logits.1.bias"].__setitem__(7, 1e6))
    expected = "tensor 'to_logits.1.bias' holds 1000000.0, beyond float16's 65504"
    fails("--dtype", "float16", folder, expected=expected)
