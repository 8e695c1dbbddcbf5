def test_steps_of_both_models_agree_over_dtypes(tables):
    clip, rudolph = tables("train", "--clip-preset=tiny", "--preset=tiny", "--clip-batch=4")
    assert clip["unit"] == "pairs" and rudolph["unit"] == "sequences"
    for table in (clip, rudolph):
        assert [row["name"] for row in table["rows"]] == ["ours float32", "ours bfloat16"]
        base, half = table["rows"]
        assert base["rate"] > 0 and half["roof"] == 2 * base["roof"]
        assert 0 < half["drift"] < 2e-2
