"""The benchmark of a large set's stream, on a small one."""

import re

from benchmarks.stream import main


def test_each_size_has_a_line(capsys):
    arguments = ["--shard-records=1000", "--batch-size=64", "--processes=4"]
    assert main(["--records", "10500", "3e6", *arguments]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("| records | shards |")
    form = r"\| ([\d,]+) \| ([\d,]+) \| [\d.]+ s \| \d+ MB \| 16 rows: \d+ ms \|"
    found = [re.fullmatch(form, line).groups() for line in lines]
    assert found == [("10,500", "11"), ("3,000,000", "3,000")]
