import json

import pytest

from benchmarks.result import Row, Table, number, write_json


@pytest.fixture
def table():
    ours = Row("ours", 25.0, 20.0, roofline_rate=50.0, max_error=1e-6, peak_bytes=1_234_000_000)
    rows = [Row("theirs", 10.0, 5.0), ours]
    return Table("generation", "codes", "theirs", rows)


def test_ratios_are_of_rates_and_not_of_seconds(table):
    assert [row["ratio"] for row in table.to_json()["rows"]] == [1.0, 2.5]


def test_lines_hold_both_ratios_roofline_memory_and_bars_by_ratio(table):
    heading, _, theirs, ours = table.lines()[-4:]
    assert heading == (
        "| | codes/s | per CPU second | x theirs | by CPU time | of roofline | max error "
        "| peak GB | |"
    )
    assert ours == f"| ours | 25 | 20 | 2.50 | 4.00 | 50% | 1.0e-06 | 1.23 | {'#' * 30} |"
    assert theirs == f"| theirs | 10 | 5 | 1.00 | 1.00 |  |  |  | {'#' * 12} |"


def test_a_row_is_compared_with_the_base_of_its_own_rounds():
    rows = [Row("theirs", 10.0, 5.0), Row("ours", 30.0, 20.0, baseline_rates=(15.0, 4.0))]
    assert Table("", "", "theirs", rows).ratios(rows[1]) == (2.0, 5.0)


def test_numbers_have_three_significant_digits():
    assert [number(x) for x in (1234.5, 12.34, 0.01234)] == ["1,234", "12.3", "0.0123"]


def test_json_is_whole_or_not_there(tmp_path, table):
    file = tmp_path / "new" / "out.json"
    write_json(file, {"decode": [table.to_json()]})
    assert json.loads(file.read_text())["decode"][0]["base"] == "theirs"
    with pytest.raises(TypeError):
        write_json(file, {"decode": table.rows})
    assert json.loads(file.read_text())["decode"][0]["base"] == "theirs"
