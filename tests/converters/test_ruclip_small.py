"""The first ruCLIP there and back, with and without its vocabulary; what may be wrong with it."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

import clip_jax
from clip_jax import Predictor, RuclipSmallConfig, model_folder
from clip_jax.byte_bpe import CLIP, RUGPT3, ByteBpe
from clip_jax.ruclip_small import PROMPT
from converters import convert, export, torch_file, torch_writer
from converters.__main__ import main

NAME = "ViT-B32-small.pt"


@pytest.fixture
def source(tmp_path, goldens):
    return shutil.copytree(goldens / "ruclip_small", tmp_path / "source")


@pytest.fixture(scope="module")
def larger_table(byte_vocabulary):
    """A vocabulary, and a change of the golden's tensors that gives its pieces rows."""
    tokenizer = ByteBpe(*byte_vocabulary(RUGPT3))

    def change(tensors):
        rows = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 64)) * 0.02
        tensors["text_encoder.model.wte.weight"] = rows.astype(np.float32)

    return tokenizer, change


def change_tensors(file, change):
    tensors = dict(torch_file.read(file))
    change(tensors)
    torch_writer.write(file, {name: np.array(tensor) for name, tensor in tensors.items()})


def change_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(content))


def write_vocabulary(folder, tokenizer):
    folder.mkdir(exist_ok=True)
    for name, content in tokenizer.files.items():
        (folder / name).write_bytes(content)


def config_of(folder):
    return RuclipSmallConfig.from_dict(model_folder.read_config(folder)["config"])


def assert_comes_back(folder, source):
    found, expected = torch_file.read(folder / NAME), torch_file.read(source / NAME)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("as_file", [False, True])
def test_there_and_back(tmp_path, source, capsys, as_file):
    path = source / NAME if as_file else source
    assert main(["ruclip-small", str(path), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out.startswith("ruclip-small: 69 tensors, 250,849 parameters")
    report = json.loads((tmp_path / "ours" / "report.json").read_text())
    assert [entry["source"] for entry in report["tensors"]] == list(torch_file.read(source / NAME))
    about = model_folder.read_config(tmp_path / "ours")
    assert about["kind"] == "ruclip-small"
    config = config_of(tmp_path / "ours")
    assert (config.vision.heads, config.text.heads, config.prompt_length) == (2, 2, 32)
    assert (config.visual_width, config.embed_dim, config.eos_id) == (48, 56, 2)
    assert (config.image.resample, config.image.crop) == ("bicubic", "resize_then_crop")
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    assert_comes_back(tmp_path / "back", source)
    assert (
        json.loads((tmp_path / "back" / "config.json").read_text())
        == about["provenance"]["original"]
    )


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_buffers_of_older_versions_come_back(tmp_path, source, dtype):
    def add(tensors):
        for layer in range(2):
            prefix = f"text_encoder.model.h.{layer}.attn"
            tensors[f"{prefix}.bias"] = np.tri(32, dtype=dtype)[None, None]
            tensors[f"{prefix}.masked_bias"] = np.array(-1e4, np.float32)

    change_tensors(source / NAME, add)
    convert("ruclip-small", source, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "back")
    assert_comes_back(tmp_path / "back", source)


def test_heads_without_a_config_have_64_numbers(tmp_path, source):
    (source / "config.json").unlink()
    convert("ruclip-small", source, tmp_path / "ours")
    config = config_of(tmp_path / "ours")
    assert (config.vision.heads, config.text.heads, config.eos_id) == (1, 1, 2)
    export(tmp_path / "ours", tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == [NAME]


def test_rugpt3_s_own_config_beside_it(tmp_path, source):
    settings = {
        **{"model_type": "gpt2", "n_head": 4, "n_embd": 64, "n_layer": 2, "n_positions": 32},
        **{"vocab_size": 300, "bos_token_id": 50256, "eos_token_id": 50256, "n_inner": None},
        "activation_function": "gelu_new",
    }
    (source / "config.json").write_text(json.dumps(settings))
    convert("ruclip-small", source, tmp_path / "ours")
    config = config_of(tmp_path / "ours")
    assert (config.text.heads, config.vision.heads, config.eos_id) == (4, 1, 2)


def test_a_vocabulary_that_is_named(tmp_path, source, larger_table):
    tokenizer, change = larger_table
    change_tensors(source / NAME, change)
    change_config(source, text={"vocab_size": tokenizer.vocab_size})
    write_vocabulary(tmp_path / "rugpt3", tokenizer)
    arguments = ["ruclip-small", str(source), str(tmp_path / "ours")]
    assert main([*arguments, "--vocabulary", str(tmp_path / "rugpt3")]) == 0
    assert clip_jax.load_tokenizer(tmp_path / "ours").files == tokenizer.files


def test_texts_with_a_vocabulary(tmp_path, source, larger_table, goldens):
    tokenizer, change = larger_table
    change_tensors(source / NAME, change)
    change_config(source, text={"vocab_size": tokenizer.vocab_size})
    write_vocabulary(source, tokenizer)
    convert("ruclip-small", source, tmp_path / "ours")
    clip = clip_jax.load(tmp_path / "ours")
    ids = clip.processor(text="Изображение кошки")["input_ids"]
    whole = tokenizer.encode("Изображение кошки")
    assert ids.shape == (1, 32)
    assert ids[0].tolist()[: len(whole) + 2][:31] == [1, *whole, 2][:31]
    predictor = Predictor(clip, [PROMPT])
    latents = predictor.get_text_latents(["кошки", "собаки"])
    np.testing.assert_allclose(np.linalg.norm(latents, axis=1), 1, atol=1e-6)
    expected = clip.encode_text(clip.processor(text=["Изображение кошки"])["input_ids"])
    np.testing.assert_allclose(latents[:1], expected, atol=1e-6)
    images = [goldens / "ruclip" / f"image{i}.png" for i in range(3)]
    features = clip.encode_image(clip.processor(images=images)["pixel_values"])
    assert predictor.run(images, latents) == (features @ latents.T).argmax(axis=1).tolist()

    clip.save(tmp_path / "saved")
    export(tmp_path / "ours", tmp_path / "back")
    assert_comes_back(tmp_path / "back", source)
    for name, content in tokenizer.files.items():
        assert (tmp_path / "back" / name).read_bytes() == content
    export(tmp_path / "saved", tmp_path / "home")  # as if it had been trained here
    convert("ruclip-small", tmp_path / "home", tmp_path / "again")
    assert config_of(tmp_path / "again") == clip.config
    assert clip_jax.load_tokenizer(tmp_path / "again").files == tokenizer.files


def test_another_resolution(tmp_path, source, rng):
    convert("ruclip-small", source, tmp_path / "ours")
    clip = clip_jax.load(tmp_path / "ours").with_image_size(48)
    assert clip.encode_image(rng.normal(size=(1, 48, 48, 3)).astype(np.float32)).shape == (1, 56)


@pytest.fixture
def fails(tmp_path, source, capsys):
    def run(*expected, vocabulary=None):
        arguments = ["ruclip-small", str(source), str(tmp_path / "out" / "model")]
        assert main(arguments + (["--vocabulary", str(vocabulary)] if vocabulary else [])) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        for part in expected:
            assert part in captured.err
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

    return run


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_truncated_weights(fails, source, part):
    content = (source / NAME).read_bytes()
    (source / NAME).write_bytes(content[: int(part * len(content))])
    fails(NAME, "copy it again")


def test_hostile_pickle(fails, source, tmp_path):
    from archives import write_archive

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trace'}",)

    write_archive(source / NAME, pickle.dumps({"a": Hostile()}, 2))
    fails(NAME, "'posix.system' is refused")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("logit_scale"), "tensor 'logit_scale' is missing"),
        (lambda t: t.pop("text_encoder.model.h.0.ln_1.bias"), "h.0.ln_1.bias' is missing"),
        (lambda t: t.pop("text_encoder.model.wpe.weight"), "wpe.weight' is missing"),
        (lambda t: t.update(extra=np.zeros(3)), "tensor 'extra' is surplus"),
        (
            lambda t: t.update({"text_encoder.model.h.0.attn.bias": np.ones((1, 1, 32, 32), bool)}),
            "they differ in 496 of 1024 places",
        ),
        (
            lambda t: t.update({"text_encoder.model.ln_f.bias": np.zeros(63, np.float32)}),
            "has shape [63]; the shape of the other tensors asks for [64]",
        ),
        (
            lambda t: t.update({"visual_encoder.model.positional_embedding": np.zeros((16, 64))}),
            "has 16 rows; expected 1 + a square",
        ),
    ],
)
def test_tensors(fails, source, change, expected):
    change_tensors(source / NAME, change)
    fails(NAME, expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"text": {"n_layer": 3}}, "text.n_layer is 3; the tensors say 2"),
        ({"text": {"n_head": 5}}, "text.width is 64, not a multiple of text.heads (5)"),
        ({"vision": {"heads": "2"}}, "vision.heads is '2'; expected a positive integer"),
        ({"vision": {"depth": 2}}, "unknown 'vision.depth'"),
        ({"projection_dim": 57}, "projection_dim is 57; the tensors say 56"),
        ({"eos_token_id": 300}, "eos_id is 300"),
        ({"model_type": "gpt2", "n_embd": 64, "n_inner": 100}, "n_inner is 100"),
        ({"model_type": "gpt2", "activation_function": "relu"}, "activation_function is 'relu'"),
        ({"model_type": "gpt2", "n_head": 0}, "text.n_head is 0; expected a positive integer"),
    ],
)
def test_config(fails, source, changes, expected):
    change_config(source, **changes)
    fails(str(source), expected)


def test_vocabulary(fails, source, tmp_path, byte_vocabulary, larger_table):
    tokenizer, _ = larger_table
    folder = tmp_path / "vocabulary"
    fails("does not exist", vocabulary=folder)
    write_vocabulary(folder, tokenizer)
    fails("the tokenizer has 659 pieces, the model's table only 300 rows", vocabulary=folder)
    (folder / "merges.txt").write_text("a b c\n")
    fails("merges.txt", "line 1 is 'a b c'; expected two pieces", vocabulary=folder)
    (folder / "merges.txt").unlink()
    fails("holds neither bpe_simple_vocab_16e6.txt.gz nor vocab.json", vocabulary=folder)
    small = {piece: i for i, piece in enumerate(("<s>", "<pad>", "</s>", "a", "<unk>"))}
    write_vocabulary(folder, ByteBpe(small | {"</s>": 7}, []))
    fails("ends a text with id 7, the model expects 2", vocabulary=folder)
    write_vocabulary(folder, ByteBpe(*byte_vocabulary(CLIP)))
    fails("belong to different models", vocabulary=folder)
