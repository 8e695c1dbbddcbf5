from benchmarks import convert


def test_a_conversion_is_timed_against_a_copy_and_leaves_nothing(tables, tmp_path):
    (table,) = tables("convert", "--preset=tiny")
    assert table["base"] == convert.BASE and table["unit"] == "MB"
    assert [row["name"] for row in table["rows"]] == ["a copy", "ours"]
    assert all(row["rate"] > 0 and row["peak"] > 1e6 for row in table["rows"])
    models = {folder.name for folder in (tmp_path / "models").iterdir()}
    assert models == {"rudolph-tiny", "rudolph-tiny-original"}
