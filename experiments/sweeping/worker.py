"""One run of a sweep in a process of its own: python -m experiments.sweeping.worker CONFIG FOLDER

CONFIG: a JSON file with the config of the run. A run that diverged has a result and status 0.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_jax.atomic_file import replace_file
from clip_jax.cli import Parser, local_only
from clip_jax.errors import InputError
from experiments.cli.exit_status import exit_status
from experiments.config.extensions import NO_EXTENSIONS
from experiments.config.run import TrainConfig
from experiments.sweeping.results import Result, read_result

CONFIG, LOG = "config.json", "log.txt"
# Each process sees its own share of the accelerators of a machine.
VISIBLE = ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")


def run_in_process(
    config: TrainConfig, folder: Path, devices: Sequence[str] = (), file: Path | None = None
) -> Result:
    """Trains in a new process, which writes FOLDER/log.txt, and returns the result.

    devices: ids of the accelerators that it may see; (): all. file: the experiment file, for the
    functions that it brings.
    Raises InputError with the last line of the log where the process failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / CONFIG, json.dumps(config.to_dict()))
    visible = {name: ",".join(devices) for name in VISIBLE} if devices else {}
    environment: Mapping[str, str] = {**os.environ, **visible}
    command = [sys.executable, "-m", "experiments.sweeping.worker", str(folder / CONFIG)]
    command += [f"--extensions={file}"] * (file is not None)
    with (folder / LOG).open("ab") as log:
        done = subprocess.run(
            [*command, str(folder)], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    result = read_result(folder, config)
    if result is None:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        raise InputError(f"{folder}: ended with status {done.returncode} ({last.strip()})")
    return result


def _run(argv: Sequence[str]) -> None:
    # Imported late: the parent, which needs no trainer, imports this module too.
    from experiments.cli.command_line import load_extensions
    from experiments.sweep import run_variant

    parser = Parser(prog="python -m experiments.sweeping.worker", description=__doc__)
    parser.add_argument("config", type=local_only, help="JSON file with the config of the run")
    parser.add_argument("folder", type=local_only, help="folder of the run")
    parser.add_argument("--extensions", metavar="FILE", help="experiment file (default: none)")
    args = parser.parse_args(argv)
    try:
        data = json.loads(args.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{args.config}: cannot be read ({error})") from error
    extensions = load_extensions(args.extensions) if args.extensions else NO_EXTENSIONS
    run_variant(TrainConfig.from_dict(data, extensions), args.folder)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


if __name__ == "__main__":
    sys.exit(main())
