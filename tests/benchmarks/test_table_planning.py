"""A generated table has the rows and repeats that are said of it."""

from benchmarks.table_planning import AGAIN, main, measure, write_table


def test_rows_of_earlier_images(tmp_path):
    write_table(tmp_path / "table.csv", 1000)
    _, *lines = (tmp_path / "table.csv").read_text("utf-8").splitlines()
    names = [line.partition(",")[0] for line in lines]
    # Row 1's half is row 0.
    assert len(names) == 1000 and len(set(names)) == 1000 - 1000 // AGAIN
    assert measure(9000)["chunks"] == 3  # of 4,096 records


def test_no_rows(capsys):
    assert main(["--rows=0"]) == 2
    assert "--rows is 0; expected at least 1" in capsys.readouterr().err
