"""Measures whether tests notice faults: python tests/mutation/run.py [--modules=...] [--minutes=60]

cosmic-ray changes a module at one place (an operator, a number, a comparison), the module's tests
run, and they should fail. Mutants are made in a clone of the committed tree, so the checkout stays
as it is; an interrupted run continues, as long as neither the module nor its tests change. What
survived is listed with its line in docs/mutants.json, and docs/mutants.md has the table. A survivor
that computes the same is named, with the reason, in equivalent.json beside this file.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from modules import MODULES
from report import read_session, write_report

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / ".mutants"
SEED = 0
SLOWEST = 3.0  # times as long as the tests take without a fault, after which they count as failed
MARKS = "not torch and not slow and not browser"


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python tests/mutation/run.py", description=__doc__)
    parser.add_argument("--modules", default=",".join(MODULES), help="comma-separated (all)")
    parser.add_argument("--minutes", type=float, default=600.0, help="at most (600)")
    parser.add_argument(
        "--sample", type=int, default=0, help="mutants a module, drawn with a fixed seed (0: all)"
    )
    args = parser.parse_args()
    chosen = args.modules.split(",")
    unknown = [name for name in chosen if name not in MODULES]
    if unknown:
        sys.exit(f"error: {unknown[0]} is unknown; expected some of {', '.join(MODULES)}")
    if shutil.which(_tool()) is None:
        sys.exit("error: cosmic-ray is not installed; pip install -e '.[mutants]'")
    deadline = time.monotonic() + 60 * args.minutes
    tree = clone()
    for module in chosen:
        if time.monotonic() < deadline:
            _mutate(tree, module, args.sample, deadline)
        write_report(ROOT, {name: read_session(_session(name)) for name in MODULES})
    return 0


def _tool() -> str:
    beside = Path(sys.executable).with_name("cosmic-ray")
    return os.environ.get("COSMIC_RAY") or str(beside)


def clone() -> Path:
    """Returns a clone of the committed tree, without mutants of an interrupted run."""
    tree = WORK / "tree"
    if not tree.exists():
        WORK.mkdir(exist_ok=True)
        subprocess.run(["git", "clone", "-q", str(ROOT), str(tree)], check=True)
    for command in ("fetch -q origin", "reset -q --hard origin/HEAD", "clean -fdxq"):
        subprocess.run(["git", *command.split()], cwd=tree, check=True)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    subprocess.run(["git", "reset", "-q", "--hard", head], cwd=tree, check=True)
    return tree


def _session(module: str) -> Path:
    """Returns the file of a module's mutants: of this text of the module and its tests."""
    digest = hashlib.sha256()
    for name in (module, *MODULES[module]):
        digest.update((ROOT / name).read_bytes())
    name = module.removesuffix(".py").replace("/", ".")
    return WORK / f"{name}-{digest.hexdigest()[:12]}.sqlite"


def _mutate(tree: Path, module: str, sample: int, deadline: float) -> None:
    tests = " ".join(MODULES[module])
    python = shlex.quote(sys.executable)
    command = f"{python} -m pytest -x -q -p no:xdist -p no:cacheprovider -o addopts= "
    command += f"--import-mode=importlib -m '{MARKS}' {tests}"
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    session, config = _session(module), WORK / "config.toml"
    if not session.exists():
        start = time.monotonic()
        found = subprocess.run(
            shlex.split(command), cwd=tree, env=environment, capture_output=True, text=True
        )
        if found.returncode:
            sys.exit(f"error: {module}: its tests fail without a mutant\n{found.stdout[-2000:]}")
        timeout = SLOWEST * (time.monotonic() - start) + 30
        (session.with_suffix(".seconds")).write_text(str(timeout), encoding="utf-8")
    timeout = float(session.with_suffix(".seconds").read_text(encoding="utf-8"))
    config.write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps(module)}\ntimeout = {timeout:.1f}\n"
        f"excluded-modules = []\ntest-command = {json.dumps(command)}\n"
        "[cosmic-ray.distributor]\nname = \"local\"\n",
        encoding="utf-8",
    )
    if not session.exists():
        partial = session.with_suffix(".new")
        partial.unlink(missing_ok=True)
        subprocess.run(
            [_tool(), "init", str(config), str(partial)], cwd=tree, check=True, env=environment
        )
        _draw(partial, sample, (tree / module).read_text(encoding="utf-8"))
        partial.replace(session)
    left = sum(mutant.noticed is None for mutant in read_session(session))
    print(f"{module}: {left} mutants to run", flush=True)
    run = subprocess.Popen(
        [_tool(), "exec", str(config), str(session)], cwd=tree, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        run.wait(max(deadline - time.monotonic(), 1))
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
        os.killpg(run.pid, 15)
        run.wait()
        if isinstance(stopped, KeyboardInterrupt):
            raise
    finally:
        subprocess.run(["git", "checkout", "-q", "."], cwd=tree, check=True)


def _draw(session: Path, sample: int, source: str) -> None:
    """Removes from a new session what is not to run: what changes nothing, all but a sample.

    `is` in place of == is no fault between constants, which Python has once. Annotations are never
    evaluated. source: the text of the module.
    """
    spans = annotation_spans(source)
    with sqlite3.connect(session) as database:
        # By place: the identifiers of jobs are new in each session.
        found = database.execute(
            "SELECT job_id, operator_name, start_pos_row, start_pos_col FROM mutation_specs "
            "ORDER BY start_pos_row, start_pos_col, operator_name, occurrence"
        ).fetchall()
        jobs = [
            job
            for job, name, *place in found
            if not name.endswith(("_Is", "_IsNot"))
            and not any(start <= tuple(place) < stop for start, stop in spans)
        ]
        kept = set(random.Random(SEED).sample(jobs, min(sample or len(jobs), len(jobs))))
        dropped = [(job,) for job, *_ in found if job not in kept]
        for table in ("mutation_specs", "work_items"):
            database.executemany(f"DELETE FROM {table} WHERE job_id = ?", dropped)


def annotation_spans(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Returns (line, column) of the start and of the end of each annotation.

    None where the module evaluates them: without `from __future__ import annotations`.
    """
    tree = ast.parse(source)
    if not any(isinstance(x, ast.ImportFrom) and x.module == "__future__" for x in tree.body):
        return []
    found = []
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if isinstance(each := getattr(node, name, None), ast.expr):
                start, stop = (each.lineno, each.col_offset), (each.end_lineno, each.end_col_offset)
                found.append((start, stop))
    return found


if __name__ == "__main__":
    sys.exit(main())
