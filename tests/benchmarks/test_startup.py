from benchmarks import startup
from benchmarks.random_models import rudolph_folder


def test_first_results_of_a_new_process_and_its_programs_are_kept(tmp_path):
    home = tmp_path / "programs"
    asked = [("tiny", "draw", rudolph_folder("tiny", tmp_path / "models"))]
    found = startup.firsts(asked, str(home))
    assert list(found) == ["tiny, first code", "tiny, program of a picture"]
    assert min(found.values()) > 0
    assert len(list(home.glob("*-cache"))) >= 2


def test_imports_are_timed_each_in_a_process_of_its_own():
    slow, quick = startup.imports(("this", "json"), rounds=1)
    assert slow > 0 and quick > 0
