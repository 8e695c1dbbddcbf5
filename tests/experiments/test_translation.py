"""A cache of translations that fills up, and a random Marian translator beside transformers'."""

import json
import os
import pickle

import pytest
import sentencepiece

from clip_jax import InputError
from experiments import translate
from experiments.evaluation.prompts.translations import read_translations
from experiments.evaluation.prompts.translator import NEEDED, Translator, fill_cache, open_cache

TEXTS = ["кошка", "собака на траве", "красный круг", "дом", "лес и река", "на фото видно ёж"]


def upper(texts):
    return [text.upper() for text in texts]


def test_what_is_missing_is_translated_once(tmp_path):
    kept = open_cache(tmp_path / "t.json", {"name": "a"})
    assert list(fill_cache(kept, [*TEXTS, TEXTS[0]], upper, 4)) == [4, 2]
    kept = open_cache(tmp_path / "t.json", {"name": "a"})
    assert kept.translate(TEXTS) == upper(TEXTS)
    asked = []
    list(fill_cache(kept, [*TEXTS, "новый"], lambda texts: asked.append(texts) or ["NEW"], 4))
    assert asked == [["новый"]]
    assert len(read_translations(tmp_path / "t.json").texts) == len(TEXTS) + 1


def test_who_is_stopped_goes_on(tmp_path):
    kept = open_cache(tmp_path / "t.json", {"name": "a"})
    batches = fill_cache(kept, TEXTS, upper, 2)
    next(batches), next(batches)
    batches.close()
    kept = open_cache(tmp_path / "t.json", {"name": "a"})
    assert len(kept.texts) == 4
    assert list(fill_cache(kept, TEXTS, upper, 2)) == [2]


def test_translators_do_not_mix(tmp_path):
    list(fill_cache(open_cache(tmp_path / "t.json", {"name": "a", "search": 4}), TEXTS, upper, 9))
    with pytest.raises(InputError, match="made with another search, 4 and not 6; name another"):
        open_cache(tmp_path / "t.json", {"name": "a", "search": 6})


def test_mistakes_of_the_command(tmp_path, capsys):
    def fails(*arguments):
        assert translate.main([f"--cache={tmp_path / 'c.json'}", *arguments]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert not (tmp_path / "c.json").exists()
        return line

    model = f"--model={tmp_path / 'marian'}"
    assert "nothing to translate" in fails(model)
    assert "no class names of a set 'cifar11'" in fails(model, "--sets=cifar11")
    assert "absent: cannot be read" in fails(model, f"--texts={tmp_path / 'absent'}")
    (tmp_path / "texts").write_bytes(b"\xff\n")
    assert "not UTF-8" in fails(model, f"--texts={tmp_path / 'texts'}")
    assert "--batch-size is 0" in fails(model, "--sets=all", "--batch-size=0")
    assert "has no config.json" in fails(model, "--sets=mnist")


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """A Marian checkpoint with random weights and two small sentencepiece models."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("marian") / "opus-mt-ru-en"
    folder.mkdir()
    pieces = {}
    for side, words in (("source", TEXTS), ("target", ["a cat", "the dog", "red", "house wood"])):
        (folder / "words").write_text("\n".join(words * 4), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "words"), model_prefix=str(folder / side), model_type="unigram",
            vocab_size=40 if side == "source" else 24, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
        pieces |= {processor.id_to_piece(i): None for i in range(3, processor.get_piece_size())}
    names = ["</s>", "<unk>", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    size = len(names)
    config = transformers.MarianConfig(
        vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        max_position_embeddings=32, pad_token_id=size - 1, eos_token_id=0, scale_embedding=True,
        decoder_start_token_id=size - 1, forced_eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.MarianMTModel(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.4)
    model.generation_config.update(
        num_beams=4, max_length=12, bad_words_ids=[[size - 1]], length_penalty=0.6
    )
    model.save_pretrained(folder)
    return folder


@pytest.mark.torch
def test_translations_are_those_of_transformers(marian, tmp_path, capsys):
    import transformers

    tokenizer = transformers.MarianTokenizer.from_pretrained(marian)
    model = transformers.MarianMTModel.from_pretrained(marian).eval()
    expected = []
    for text in TEXTS:
        out = model.generate(**tokenizer([text], return_tensors="pt"))
        expected += tokenizer.batch_decode(out, skip_special_tokens=True)
    assert len(set(expected)) > 2  # so that mixed up texts would show
    assert Translator(marian).translate(TEXTS) == expected

    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS) + "\n", encoding="utf-8")
    arguments = [f"--model={marian}", f"--texts={tmp_path / 'texts.txt'}", "--batch-size=4"]
    arguments += [f"--cache={tmp_path / 'cache.json'}"]
    assert translate.main(arguments) == 0
    assert capsys.readouterr().out.endswith("cache.json: 6 texts, 6 of them new\n")
    kept = read_translations(tmp_path / "cache.json")
    assert kept.translate(TEXTS) == expected
    about = kept.translator
    assert (about["name"], about["search"]["num_beams"]) == ("opus-mt-ru-en", 4)
    assert about["search"]["length_penalty"] == 0.6
    assert about["versions"]["transformers"] == transformers.__version__
    assert translate.main(arguments) == 0
    assert capsys.readouterr().out.endswith("6 texts, 0 of them new\n")


@pytest.mark.torch
def test_what_is_no_translator(marian, tmp_path):
    with pytest.raises(InputError, match=r"has \d\d+ tokens; the translator takes 32"):
        Translator(marian).translate(["кошка", "кошка " * 40])
    for name in NEEDED:
        (tmp_path / name).write_bytes((marian / name).read_bytes())
    with pytest.raises(InputError, match="not a Marian translator") as caught:
        Translator(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(InputError, match="not a Marian translator"):
        Translator(tmp_path)
    (tmp_path / "model.safetensors").unlink()

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trace'}",)

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Hostile()}, 2))
    with pytest.raises(InputError, match="hold more than tensors, and are refused"):
        Translator(tmp_path)
    assert not (tmp_path / "trace").exists()
