"""Commands' tables on a terminal, and what pipes get in their place."""

import io

import pytest

from experiments.evaluation.tasks.options import print_all
from experiments.plan import describe
from experiments.start_checks.table import VERDICT_STYLES, format_table

ROWS = [("ruclip", "CIFAR-10", "accuracy 0.5, 10 images"), ("ruclip", "MNIST", "accuracy 0.25")]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_results_of_several_sets_are_a_table_at_the_end(stream, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout", stream)
    print_all(ROWS[:1])
    assert not stream.getvalue()  # its line is printed already
    print_all(ROWS)
    written = stream.getvalue()
    assert all(cell in written for row in ROWS for cell in row) == stream.isatty()
    assert bool(written) == stream.isatty()


def test_the_lines_of_a_plan_and_of_checks():
    rows = [("parameters", "1,234"), ("bytes per device", ""), ("  peak", "0.5 GB")]
    assert describe("v4:8x8x8: mesh data 8", rows) == (
        "v4:8x8x8: mesh data 8\n"
        "parameters            1,234\n"
        "bytes per device\n"
        "  peak                0.5 GB"
    )
    checks = [("data", "ok", "3 rows"), ("free space", "error", "none")]
    assert format_table(checks) == "data        ok     3 rows\nfree space  error  none"
    assert set(VERDICT_STYLES) == {"ok", "warning", "error"}
