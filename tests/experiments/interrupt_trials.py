"""Interrupts a small run at chosen lines of its code, resumes it, and says what came of it.

    python interrupt_trials.py FOLDER TRIALS

A process of its own: an interrupt inside `jax.set_mesh` may leave a mesh set. TRIALS 0: all lines.
Prints a JSON object: lines, how many the run executes; trials, [{place, finding}].
"""

import contextlib
import io
import itertools
import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

from small_run import SmallRun, on_host, same

import experiments
from experiments.training.checkpoint import Checkpoints, abstract_state
from experiments.training.metrics import read_metrics

OURS = str(Path(experiments.__file__).parent)
METRIC = "probe:validation/w"


class Interrupt:
    """Calls the handler of SIGINT, as Python does on Ctrl-C, before the n-th line of our code."""

    def __init__(self, at=None):
        self.at, self.seen, self.place = at, 0, None

    def __enter__(self):
        sys.settrace(self.call)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def call(self, frame, event, _):
        return self.line if frame.f_code.co_filename.startswith(OURS) else None

    def line(self, frame, event, _):
        if event == "line":
            self.seen += 1
            if self.seen == self.at:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)
        return self.line


def make_run():
    values = {"probe:validation": lambda params: {"w": -abs(float(params["w"][0]) - 0.2)}}
    return SmallRun(evaluators=values, evaluate_every=2, best_metric=METRIC, keep_checkpoints=1)


def saved_states(run, folder):
    """Step -> state, of each checkpoint of a run's folder, and the best step."""
    found = {}
    with Checkpoints(folder / "checkpoints", 1, METRIC, read_only=True) as checkpoints:
        names = (path.name for path in checkpoints.folder.iterdir())
        for step in sorted(int(name) for name in names if name.isdecimal()):
            found[step] = on_host(checkpoints.restore(step, abstract_state(run.start())))
        return found, checkpoints.best_step()


def wait_for_writers():
    """Lets a save end that an interrupt left to its threads, as the end of a process does."""
    for thread in threading.enumerate():
        if "save" in thread.name:
            thread.join()


def by_step(folder):
    merged = {}
    for row in read_metrics(folder):
        known = merged.setdefault(row["step"], {})
        if known.keys() & (row.keys() - {"step"}):
            raise AssertionError(f"step {row['step']} has two rows of the same")
        known.update(row)
    return merged


def main(folder, trials):
    run = make_run()
    states = {}

    def watched(state, batch, step=run.runner.step):
        after, metrics = step(state, batch)
        states[int(after["step"])] = on_host(after)
        return after, metrics

    run.runner.step, step = watched, run.runner.step
    run(folder / "whole")
    run.runner.step = step
    expected_rows = by_step(folder / "whole")
    kept, best = saved_states(run, folder / "whole")
    with Interrupt() as counting:
        run(folder / "counted")
    places = range(1, counting.seen + 1)
    if trials:
        # One in each of as many stretches, so that new lines of code leave no phase of a run out.
        draw = random.Random(17)
        ends = [counting.seen * part // trials for part in range(trials + 1)]
        places = [draw.randint(start + 1, end) for start, end in itertools.pairwise(ends)]
    results = []
    for at in places:
        workdir = folder / str(at)
        interrupt, left = Interrupt(at), True
        try:
            with interrupt:
                run(workdir)
            left = False
        except KeyboardInterrupt:
            wait_for_writers()
        finding = []
        if interrupt.place and not left:
            finding.append("the interrupt was lost")
        before, _ = saved_states(run, workdir) if (workdir / "checkpoints").exists() else ({}, 0)
        finding += [f"{n} holds another" for n, s in before.items() if not same(s, states[n])]
        last = run(workdir)
        if not same(last, states[run.config.steps]):
            finding.append("resumed to another state")
        if by_step(workdir) != expected_rows:
            finding.append("other metrics")
        after, found_best = saved_states(run, workdir)
        if found_best != best or not kept.keys() <= after.keys():
            finding.append(f"keeps {[*after]}, best {found_best}; expected {[*kept]}, best {best}")
        saved = max(before, default=0)
        results.append({"place": interrupt.place, "finding": finding, "saved": saved})
    return {"lines": counting.seen, "trials": results}


if __name__ == "__main__":
    console = io.StringIO()
    with contextlib.redirect_stderr(console):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    found = main(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # threads that an interrupt cut off from their end
