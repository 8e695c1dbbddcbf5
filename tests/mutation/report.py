"""Reads what cosmic-ray found, and writes docs/mutants.json and the table of docs/mutants.md."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

HERE = Path(__file__).parent
TABLE = "| module | mutants | noticed | survived | equivalent | not run | noticed of the others |\n"
TABLE += "|---|---|---|---|---|---|---|\n"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A changed line. noticed: whether a test failed, or took too long; None: not run yet."""

    operator: str
    line: int
    before: str
    after: str
    noticed: bool | None


def read_session(session: Path) -> list[Mutant]:
    """Returns the mutants of a session; none where there is no session yet."""
    if not session.exists():
        return []
    with sqlite3.connect(session) as database:
        rows = database.execute(
            "SELECT operator_name, start_pos_row, diff, worker_outcome, test_outcome "
            "FROM mutation_specs LEFT JOIN work_results USING (job_id) "
            "ORDER BY start_pos_row, start_pos_col, operator_name, occurrence"
        ).fetchall()
    mutants = []
    for operator, line, diff, worker, outcome in rows:
        before, after = _changed(diff or "")
        noticed = None if worker is None else outcome not in ("SURVIVED", "TestOutcome.SURVIVED")
        mutants.append(Mutant(operator.removeprefix("core/"), line, before, after, noticed))
    return mutants


def _changed(diff: str) -> tuple[str, str]:
    """Returns the first line that a diff removes, and the first that it adds."""
    lines = diff.splitlines()
    removed = [x[1:].strip() for x in lines if x.startswith("-") and not x.startswith("---")]
    added = [x[1:].strip() for x in lines if x.startswith("+") and not x.startswith("+++")]
    return (removed or [""])[0], (added or [""])[0]


def equivalents() -> dict[tuple[str, str, str], str]:
    """Returns (module, line before, line after) -> the reason why nothing can notice it."""
    found = json.loads((HERE / "equivalent.json").read_text(encoding="utf-8"))
    return {(e["module"], e["before"], e["after"]): e["reason"] for e in found}


def summarize(module: str, mutants: list[Mutant]) -> dict[str, object]:
    """Returns the counts of a module, and its survivors that are not equivalent."""
    known = equivalents()
    survivors = [each for each in mutants if each.noticed is False]
    same = [each for each in survivors if (module, each.before, each.after) in known]
    left = [each for each in survivors if each not in same]
    noticed = sum(each.noticed is True for each in mutants)
    return {
        "mutants": len(mutants),
        "noticed": noticed,
        "survived": len(left),
        "equivalent": len(same),
        "not_run": sum(each.noticed is None for each in mutants),
        "survivors": [
            {k: v for k, v in dataclasses.asdict(each).items() if k != "noticed"} for each in left
        ],
    }


def write_report(root: Path, sessions: dict[str, list[Mutant]]) -> None:
    """Writes both files. Modules without a session here keep what the file says of them."""
    file = root / "docs" / "mutants.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found |= {name: summarize(name, mutants) for name, mutants in sessions.items() if mutants}
    found = dict(sorted(found.items()))
    text = json.dumps(found, ensure_ascii=False, indent=1)
    file.write_text(f"{text}\n", encoding="utf-8")
    page = root / "docs" / "mutants.md"
    head = page.read_text(encoding="utf-8").partition(TABLE)[0]
    page.write_text(head + TABLE + "".join(map(_row, found.items())), encoding="utf-8")


def _row(item: tuple[str, dict]) -> str:
    name, counts = item
    ran = counts["noticed"] + counts["survived"]
    share = f"{counts['noticed'] / ran:.0%}" if ran else ""
    keys = ("mutants", "noticed", "survived", "equivalent", "not_run")
    return f"| `{name}` | {' | '.join(str(counts[key]) for key in keys)} | {share} |\n"
