"""One of four processes is killed; all are started again."""

import pytest

from benchmarks.lost_process import Ended, Trial, describe, main, run_trial
from experiments.cli.exit_status import LEFT_BEHIND


@pytest.mark.slow
def test_four_processes(tmp_path):
    found = run_trial(4, 20, tmp_path)
    assert sorted(ended.status for ended in found.lost) == [-9, *[LEFT_BEHIND] * 3]
    survivors = [ended for ended in found.lost if ended.status == LEFT_BEHIND]
    assert all(ended.error.startswith("error: process 2 (") for ended in survivors)
    assert [ended.status for ended in found.resumed] == [0] * 4
    assert found.same and found.detection < 60


def test_what_is_said():
    lost = [Ended(5, "a line\nerror: process 1 is lost\n"), Ended(-9, "")]
    resumed = [Ended(0, "peak 1000\n"), Ended(0, "peak 2000\n")]
    said = describe(Trial(lost, resumed, 7, 1.5, 20.0, False))
    assert "killed after step 7: 1 of 1 others ended with status 5 in 1.5 s" in said
    assert "memory of a process: 1 to 2 MB" in said and "equal to the bit: no" in said


def test_too_few(capsys):
    assert main(["--processes=1"]) == 2
    assert "--processes is 1; expected at least 2" in capsys.readouterr().err
