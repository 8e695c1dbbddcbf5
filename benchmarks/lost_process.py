"""Kills one of many training processes and resumes: python -m benchmarks.lost_process

Trains a small ruCLIP on digits with processes of one CPU device each, once undisturbed, and once
with a process killed (kill -9) in the middle and all started again. Prints how the others ended,
how long they took, the memory of a process, and whether the metrics of both runs are the same.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli import Parser
from clip_jax.errors import InputError
from experiments.cli.exit_status import LEFT_BEHIND, exit_status
from experiments.training.metrics import read_metrics

CONFIG = Path(__file__).parent.parent / "experiments/configs/digits.py"
PATIENCE_SECONDS = 3600.0
# What a process is started with: its largest resident size comes last on stderr.
CHILD = """
import resource, sys
from experiments.train import main
status = main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr, flush=True)
sys.exit(status)
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    """Holds the status that a process ended with, and its stderr."""

    status: int
    errors: str

    @property
    def peak(self) -> int | None:
        """Its largest resident size in bytes, None of one that did not come to its end."""
        sizes = [line.split()[1] for line in self.errors.splitlines() if line.startswith("peak ")]
        return 1024 * int(sizes[-1]) if sizes else None

    @property
    def error(self) -> str:
        """The line that it ended with."""
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else ""


@dataclasses.dataclass(frozen=True)
class Trial:
    """lost, resumed: how the processes ended. detection: seconds from the kill to the last end.

    step: the last one before. resuming: seconds from the second start to the first step beyond it.
    same: whether the metrics of both runs are equal, to the bit.
    """

    lost: list[Ended]
    resumed: list[Ended]
    step: int
    detection: float
    resuming: float
    same: bool


def run_trial(processes: int, steps: int, folder: Path) -> Trial:
    """Runs both in `folder`, with a checkpoint every tenth step."""
    straight, broken = folder / "straight", folder / "broken"
    for ended in _wait(_start_until(processes, steps, straight, folder, 1)):
        if ended.status:
            raise InputError(f"a process ended with {ended.status}: {ended.errors[-2000:]}")
    children = _start_until(processes, steps, broken, folder, steps // 2)
    children[processes // 2].process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    lost = _wait(children)
    detection = time.monotonic() - killed
    reached = _last_step(broken)
    begun = time.monotonic()
    children = _start_until(processes, steps, broken, folder, reached + 1)
    resuming = time.monotonic() - begun
    resumed = _wait(children)
    same = _by_step(straight) == _by_step(broken)
    return Trial(lost, resumed, reached, detection, resuming, same)


@dataclasses.dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    stderr: Path

    def wait(self) -> Ended:
        status = self.process.wait(PATIENCE_SECONDS)
        return Ended(status, self.stderr.read_text("utf-8", "replace"))


def _start(processes: int, steps: int, workdir: Path, folder: Path) -> list[_Child]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    overrides = {
        "steps": steps, "checkpoint_every": 10, "evaluate_every": steps // 2, "log_every": 1,
        "data.batch_size": 4 * processes, "data.directory": folder / "data", "data.split": "test",
        "data.threads": 1, "data.in_memory": False, "model.vision.layers": 1,
        "model.text.layers": 1, "compute.unroll": 1,
    }  # fmt: skip
    options = [f"--config.{key}={value}" for key, value in overrides.items()]
    children = []
    for index in range(processes):
        stderr = folder / f"{workdir.name}-{index}.txt"
        command = [
            sys.executable, "-c", CHILD, f"--config={CONFIG}", f"--workdir={workdir}", *options,
            f"--distributed={address},{processes},{index}",
        ]  # fmt: skip
        with stderr.open("wb") as opened:
            started = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=opened, env=environment
            )
        children.append(_Child(started, stderr))
    return children


def _start_until(
    processes: int, steps: int, workdir: Path, folder: Path, step: int
) -> list[_Child]:
    """Starts them and waits for a step."""
    children = _start(processes, steps, workdir, folder)
    _wait_for(workdir, step, children)
    return children


def _wait(children: Sequence[_Child]) -> list[Ended]:
    return [child.wait() for child in children]


def _wait_for(workdir: Path, step: int, children: Sequence[_Child]) -> None:
    """Waits until a step's metrics are written; an end before it raises InputError."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _last_step(workdir) < step:
        ended = [child for child in children if child.process.poll()]
        if ended or time.monotonic() > deadline:
            found = ended[0].wait().errors[-2000:] if ended else "it takes too long"
            for child in children:
                child.process.kill()
            raise InputError(f"{workdir}: step {step} was not reached: {found}")
        time.sleep(0.05)


def _last_step(workdir: Path) -> int:
    return max((row["step"] for row in read_metrics(workdir)), default=0)


def _by_step(workdir: Path) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for row in read_metrics(workdir):
        found.setdefault(row["step"], {}).update(row)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks.lost_process", description=__doc__)
    parser.add_argument("--processes", type=int, default=16, metavar="N", help="at least 2 (16)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="at least 20 (50)")
    args = parser.parse_args(argv)
    for name, value, least in (("processes", args.processes, 2), ("steps", args.steps, 20)):
        if value < least:
            raise InputError(f"--{name} is {value}; expected at least {least}")
    with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as folder:
        found = run_trial(args.processes, args.steps, Path(folder))
    print(describe(found))


def describe(trial: Trial) -> str:
    """Says what was found, a line each."""
    statuses = [ended.status for ended in trial.lost]
    right = sum(status == LEFT_BEHIND for status in statuses)
    peaks = [ended.peak for ended in trial.resumed if ended.peak]
    errors = sorted({ended.error for ended in trial.lost if ended.error})
    lines = [
        f"killed after step {trial.step}: {right} of {len(statuses) - 1} others ended with status "
        f"{LEFT_BEHIND} in {trial.detection:.1f} s",
        *errors,
        f"resumed: {trial.resuming:.1f} s from the start to the step after it; statuses "
        f"{sorted({ended.status for ended in trial.resumed})}",
        f"memory of a process: {min(peaks) / 1e6:,.0f} to {max(peaks) / 1e6:,.0f} MB",
        f"metrics equal to the bit: {'yes' if trial.same else 'no'}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
