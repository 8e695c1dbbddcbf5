"""Tests of what is read from a session of cosmic-ray, and counted."""

import importlib.util
import json
import sqlite3
import sys
from pathlib import Path

HERE = Path(__file__).parent


def _load(name):
    spec = importlib.util.spec_from_file_location(f"mutation_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _session(folder):
    """Writes three mutants: one noticed, one that survived, one that did not run."""
    file = folder / "session.sqlite"
    diff = "--- a\n+++ b\n@@ -1 +1 @@\n-    x = a + b\n+    x = a {} b\n"
    with sqlite3.connect(file) as database:
        database.execute(
            "CREATE TABLE mutation_specs (job_id, operator_name, occurrence, start_pos_row, "
            "start_pos_col)"
        )
        database.execute("CREATE TABLE work_results (job_id, worker_outcome, test_outcome, diff)")
        for number in range(3):
            database.execute(
                "INSERT INTO mutation_specs VALUES (?, 'core/Plus', 0, ?, 0)", (number, number)
            )
        for number, outcome in ((0, "KILLED"), (1, "SURVIVED")):
            database.execute(
                "INSERT INTO work_results VALUES (?, 'NORMAL', ?, ?)",
                (number, outcome, diff.format("-*"[number])),
            )
    return file


def test_mutants_are_counted_and_survivors_listed(tmp_path, monkeypatch):
    report = _load("report")
    mutants = report.read_session(_session(tmp_path))
    assert [mutant.noticed for mutant in mutants] == [True, False, None]
    monkeypatch.setattr(report, "equivalents", dict)
    counts = report.summarize("m.py", mutants)
    assert [counts[key] for key in ("mutants", "noticed", "survived", "equivalent", "not_run")] == [
        3, 1, 1, 0, 1
    ]  # fmt: skip
    assert counts["survivors"] == [
        {"operator": "Plus", "line": 1, "before": "x = a + b", "after": "x = a * b"}
    ]
    monkeypatch.setattr(
        report, "equivalents", lambda: {("m.py", "x = a + b", "x = a * b"): "b is 2 and a too"}
    )
    assert report.summarize("m.py", mutants)["equivalent"] == 1
    assert report.summarize("m.py", mutants)["survivors"] == []


def test_the_table_keeps_what_other_runs_found(tmp_path):
    report = _load("report")
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "mutants.md"
    page.write_text(f"Head.\n\n{report.TABLE}| old |\n", encoding="utf-8")
    mutants = report.read_session(_session(tmp_path))
    report.write_report(tmp_path, {"b.py": mutants, "c.py": []})
    report.write_report(tmp_path, {"a.py": mutants})
    found = json.loads((tmp_path / "docs" / "mutants.json").read_text(encoding="utf-8"))
    assert list(found) == ["a.py", "b.py"]
    rows = page.read_text(encoding="utf-8").partition(report.TABLE)[2].splitlines()
    assert rows == [f"| `{name}` | 3 | 1 | 1 | 0 | 1 | 50% |" for name in ("a.py", "b.py")]


def test_every_module_and_its_tests_are_there():
    root = HERE.parents[1]
    for module, tests in _load("modules").MODULES.items():
        assert (root / module).is_file()
        assert tests and all((root / test).is_file() for test in tests)


def test_equivalent_mutants_are_of_lines_that_are_there():
    for known in json.loads((HERE / "equivalent.json").read_text(encoding="utf-8")):
        text = (HERE.parents[1] / known["module"]).read_text(encoding="utf-8")
        assert known["before"] in text and known["reason"], known


def test_every_fault_finds_its_place(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    root = HERE.parents[1]
    for fault in _load("faults").FAULTS:
        assert (root / fault.file).read_text(encoding="utf-8").count(fault.before) == 1, fault
        assert fault.before != fault.after
        assert all((root / test).is_file() for test in fault.tests.split()), fault


def test_the_page_has_every_fault_and_what_noticed_it(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    page = (HERE.parents[1] / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    faults = _load("faults").FAULTS
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [f.what for f in faults]
    assert all("`tests/" in row for row in rows)


def test_annotations_are_found_where_nothing_evaluates_them(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    spans = _load("run").annotation_spans
    text = "def f(x: A | B) -> int | None:\n    y: A | None = x | 1\n    return y\n"
    assert spans(text) == []
    lines = ["from __future__ import annotations", *text.splitlines()]
    found = [
        lines[line - 1][start:stop] for (line, start), (_, stop) in sorted(spans("\n".join(lines)))
    ]
    assert found == ["A | B", "int | None", "A | None"]
