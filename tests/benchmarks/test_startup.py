import subprocess

import pytest

from benchmarks import startup
from benchmarks.random_models import rudolph_folder


def test_first_results_of_a_new_process_and_its_programs_are_cached(tmp_path):
    cache = tmp_path / "programs"
    tasks = [("tiny", "generate", rudolph_folder("tiny", tmp_path / "models"))]
    times = startup.time_to_first_result(tasks, str(cache))
    assert list(times) == ["tiny, first code", "tiny, program of an image"]
    assert min(times.values()) > 0
    assert len(list(cache.glob("*-cache"))) >= 2


def test_a_package_that_cannot_be_imported_is_not_timed():
    with pytest.raises(subprocess.CalledProcessError):
        startup.import_times(("json", "no_such_package"), rounds=1)
