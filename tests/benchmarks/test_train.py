import pytest

from clip_jax.errors import InputError


def test_steps_of_both_models_agree_over_dtypes(tables):
    tiny = "--clip-preset=tiny", "--preset=tiny", "--clip-batch=4"
    clip, rudolph = tables("train", *tiny, "--steady")
    assert clip["unit"] == "pairs" and rudolph["unit"] == "sequences"
    for table in (clip, rudolph):
        assert [row["name"] for row in table["rows"]] == ["ours float32", "ours bfloat16"]
        base, half = table["rows"]
        assert base["rate"] > 0 and half["roof"] == 2 * base["roof"]
        assert 0 < half["drift"] < 2e-2


def test_losses_that_differ_are_not_timed(tables, monkeypatch):
    monkeypatch.setattr("benchmarks.train.TOLERANCE", {"bfloat16": 0.0})
    with pytest.raises(InputError, match="ours bfloat16: losses differ from those of ours float32"):
        tables("train", "--clip-preset=tiny", "--preset=tiny", "--clip-batch=4")
