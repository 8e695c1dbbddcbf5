import subprocess

import pytest

from benchmarks import startup
from benchmarks.random_models import rudolph_folder


def test_first_results_of_a_new_process_and_its_programs_are_kept(tmp_path):
    home = tmp_path / "programs"
    asked = [("tiny", "draw", rudolph_folder("tiny", tmp_path / "models"))]
    found = startup.firsts(asked, str(home))
    assert list(found) == ["tiny, first code", "tiny, program of a picture"]
    assert min(found.values()) > 0
    assert len(list(home.glob("*-cache"))) >= 2


def test_a_package_that_cannot_be_imported_is_not_timed():
    with pytest.raises(subprocess.CalledProcessError):
        startup.imports(("json", "no_such_package"), rounds=1)
