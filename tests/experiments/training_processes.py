"""Processes that train together on this machine, a device each."""

import os
import socket
import subprocess
import sys
import time

from experiments.training.metrics import read_metrics

PATIENCE = 400  # seconds, of a process on a busy machine
MAIN = "import sys; from experiments.train import main; sys.exit(main(sys.argv[1:]))"


def start_training(config, workdir, count, scratch=None, **variables):
    """Starts `count` processes of one run.

    Its config and their messages lie in `scratch`, by default beside its folder. variables: of the
    environment.
    """
    scratch = scratch or workdir.parent
    file = scratch / "config.py"
    file.write_text(
        "from experiments.config.run import TrainConfig\n"
        "def get_config():\n"
        f"    return TrainConfig.from_dict({config.to_dict()!r}).to_config_dict()\n"
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    # The last of two flags counts.
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    running = []
    for index in range(count):
        how = f"{address},{count},{index}" if count > 1 else "none"
        with open(scratch / f"messages-{index}", "w", encoding="utf-8") as messages:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-c", MAIN, f"--config={file}", f"--workdir={workdir}",
                     f"--distributed={how}"],
                    stdout=messages, stderr=subprocess.STDOUT,
                    env={**os.environ, "XLA_FLAGS": flags, **variables},
                )
            )  # fmt: skip
    return running


def last_step(workdir):
    """The last step in a run's metrics."""
    return max((row["step"] for row in read_metrics(workdir)), default=0)


def wait_for_step(workdir, step, running):
    """Returns once the run's metrics have the step."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if last_step(workdir) >= step:
            return
        for index, process in enumerate(running):
            messages = workdir.parent / f"messages-{index}"
            assert process.poll() is None, messages.read_text("utf-8")
        time.sleep(0.02)
    raise TimeoutError(f"step {step} was not reached")


def end(running):
    """Kills processes, whatever they are doing."""
    for process in running:
        process.kill()
    for process in running:
        process.wait()
