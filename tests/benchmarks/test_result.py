import json

import pytest

from benchmarks.result import Row, Table, number, write_json


@pytest.fixture
def table():
    ours = Row("ours", 25.0, 20.0, roof=50.0, drift=1e-6, peak=1_234_000_000)
    rows = [Row("theirs", 10.0, 5.0), ours]
    return Table("drawing", "codes", "theirs", rows)


def test_ratios_are_of_rates_and_not_of_seconds(table):
    assert [row["ratio"] for row in table.to_json()["rows"]] == [1.0, 2.5]


def test_lines_hold_both_ratios_the_roof_memory_and_bars_by_ratio(table):
    theirs, ours = table.lines()[-2:]
    assert ours == f"| ours | 25 | 20 | 2.50 | 4.00 | 50% | 1.0e-06 | 1.23 | {'#' * 30} |"
    assert theirs == f"| theirs | 10 | 5 | 1.00 | 1.00 |  |  |  | {'#' * 12} |"


def test_a_base_that_ran_beside_a_row_is_what_it_is_compared_with():
    rows = [Row("theirs", 10.0, 5.0), Row("ours", 30.0, 20.0, beside=(15.0, 4.0))]
    assert Table("", "", "theirs", rows).ratios(rows[1]) == (2.0, 5.0)


def test_numbers_have_three_digits_that_count():
    assert [number(x) for x in (1234.5, 12.34, 0.01234)] == ["1,234", "12.3", "0.0123"]


def test_json_is_whole_or_not_there(tmp_path, table):
    file = tmp_path / "new" / "out.json"
    write_json(file, {"decode": [table.to_json()]})
    assert json.loads(file.read_text())["decode"][0]["base"] == "theirs"
    with pytest.raises(TypeError):
        write_json(file, {"decode": table.rows})
    assert json.loads(file.read_text())["decode"][0]["base"] == "theirs"
