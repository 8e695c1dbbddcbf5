"""Tests of the benchmark of searches, at a small size."""

import re

from benchmarks import search


def test_each_way_has_a_line_with_its_recall(capfd):
    assert search.main(["--rows=3000", "--width=16", "--queries=20"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "3000 embeddings of 16 values"
    assert [line.split(" | ")[0].strip("| ") for line in lines[3:]] == list(search.WAYS)
    assert re.fullmatch(r"\| index \| 0\.0 \|.* 1\.0000 of 20 queries \|", lines[3])
