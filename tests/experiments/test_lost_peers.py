"""One of two processes is killed: status 5, a line that names it, and the same command resumes."""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import clip_jax
from experiments.cli.exit_status import LEFT_BEHIND, PeerLostError
from experiments.distributed.lost_peers import Peers
from experiments.training.metrics import read_metrics
from experiments.workdir.process_identity import ProcessIdentity

PATIENCE = 400  # seconds, of a child on a busy machine
DEAD = dataclasses.replace(ProcessIdentity.own(), started="1")

TRAIN = """
import os, signal, sys
from experiments.training import checkpoint
from experiments.evaluation.during_training import evaluators
from experiments.training import loop
from experiments.train import main
when, index = sys.argv.pop(1), int(sys.argv.pop(1))
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if when == "step" and index == 1:
    real = loop.Loop._record
    loop.Loop._record = lambda self, n, m: die() if n == 3 else real(self, n, m)
if when == "save" and index == 1:
    real = checkpoint.Checkpoints.save
    checkpoint.Checkpoints.save = lambda self, n, *a: die() if n == 4 else real(self, n, *a)
if when == "evaluation" and index == 0:
    evaluators.retrieve_both = die
sys.exit(main(sys.argv[1:]))
"""


class Two:
    """Starts two processes that talk to one another, and ends them with the test."""

    def __init__(self):
        self.children = []

    def start(self, code, *arguments, before=()):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        # The last of two flags counts.
        flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
        begun = [
            subprocess.Popen(
                [
                    sys.executable, "-c", code, *before, str(index), *arguments,
                    f"--distributed={address},2,{index}",
                ],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "XLA_FLAGS": flags},
            )
            for index in range(2)
        ]  # fmt: skip
        self.children += begun
        return begun

    def ends(self, begun):
        """[(status, last line of stderr, all of it)]"""
        texts = [child.communicate(timeout=PATIENCE)[1] for child in begun]
        return [
            (child.returncode, text.strip().splitlines()[-1] if text.strip() else "", text)
            for child, text in zip(begun, texts, strict=True)
        ]


@pytest.fixture
def two():
    two = Two()
    yield two
    for child in two.children:
        child.kill()
        child.communicate()


def line_of(index, pid):
    return re.compile(rf"error: process {index} \(process {pid} on [^)]+\) is lost, and no process")


def params_of(folder):
    return clip_jax.load(folder / "model").params


@pytest.mark.parametrize(
    ("when", "lost", "resumes"),
    [
        # test_processes.py kills one between steps, and resumes.
        pytest.param("save", 1, False, marks=pytest.mark.slow),
        pytest.param("save", 1, True, marks=pytest.mark.slow),
        pytest.param("step", 1, True, marks=pytest.mark.slow),
        pytest.param("evaluation", 0, True, marks=pytest.mark.slow),
    ],
)
def test_training_names_the_lost_process_and_resumes_bit_equal(
    two, train_config, tmp_path, when, lost, resumes
):
    config = dataclasses.replace(
        train_config,
        data=dataclasses.replace(train_config.data, batch_size=8, threads=1),
        model=dataclasses.replace(
            train_config.model,
            vision=dataclasses.replace(train_config.model.vision, layers=1),
            text=dataclasses.replace(train_config.model.text, layers=1),
        ),
        steps=6, checkpoint_every=2, watchdog_seconds=0.0,
        evaluators=("retrieval:validation",) if when == "evaluation" else (),
    )  # fmt: skip
    (tmp_path / "config.py").write_text(
        "from experiments.config.run import TrainConfig\n"
        "def get_config():\n"
        f"    return TrainConfig.from_dict({config.to_dict()!r}).to_config_dict()\n"
    )

    def run(when, folder):
        arguments = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / folder}"]
        begun = two.start(TRAIN, *arguments, before=[when])
        return begun, two.ends(begun)

    begun, ends = run(when, "lost")
    assert ends[lost][0] == -signal.SIGKILL, ends
    status, line, text = ends[1 - lost]
    assert (status, bool(line_of(lost, begun[lost].pid).match(line))) == (LEFT_BEHIND, True), text
    assert "Traceback" not in text
    assert not (tmp_path / "lost" / "model").exists()
    if not resumes:
        return
    for folder in ("lost", "whole"):
        _, ends = run("never", folder)
        assert [end[0] for end in ends] == [0, 0], ends
    found, expected = params_of(tmp_path / "lost"), params_of(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    rows = [read_metrics(tmp_path / name) for name in ("lost", "whole")]
    assert rows[0] == rows[1]


WAITING = """
import os, signal, sys, time
from experiments.distributed import processes
from experiments.cli.exit_status import exit_status
from experiments.distributed.processes import Processes
from experiments.distributed.lost_peers import Peers
processes.initialize(sys.argv[-1].partition("=")[2])
both, dies, how = Processes(), int(sys.argv[2]), sys.argv[3]
def work():
    with Peers(both) as peers:
        while len(peers._identities) < 1:
            time.sleep(0.05)
        both.barrier("met")
        if both.index == dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "barrier":
            both.barrier("never")
        elif how == "alone":
            time.sleep(1000)
        elif how == "abort":
            os.abort()
sys.exit(processes.run_and_shutdown(lambda: exit_status(work)))
"""


@pytest.mark.parametrize(
    ("dies", "how"),
    [
        (1, "barrier"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, "barrier"), (1, "alone"))),
    ],
)
def test_whatever_the_others_wait_for(two, dies, how):
    begun = two.start(WAITING, str(dies), how)
    ends = two.ends(begun)
    status, line, text = ends[1 - dies]
    assert status == LEFT_BEHIND and line_of(dies, begun[dies].pid).match(line), text
    assert ends[dies][0] == -signal.SIGKILL


class Alone:
    """Stands for `Processes` of process 1 of 3, whose store answers what a test puts there."""

    count, index, first = 3, 1, False

    def __init__(self):
        self.put_there = {}

    def put(self, key, value, overwrite=False):
        self.put_there[key] = value
        return True


def seen(peers, index, identity, beat=1):
    peers._take({str(index): json.dumps({**dataclasses.asdict(identity), "beat": beat})})


ELSEWHERE = ProcessIdentity("node7", "another boot", 12, "3")


class First(Alone):
    """Checks process 0, which looks at all and writes what it finds."""

    index, first = 0, True


def test_which_process_is_named(monkeypatch):
    first, peers, now = Peers(First()), Peers(Alone()), [time.monotonic()]
    monkeypatch.setattr("experiments.distributed.lost_peers.time.monotonic", lambda: now[0])

    def hear():
        first._beat += 1
        first._sum_up()
        peers._take_summary(first._processes.put_there["peers summary"])

    seen(first, 1, ELSEWHERE)
    seen(first, 2, ELSEWHERE)
    hear()
    assert first.lost() == peers.lost() == []
    now[0] += 11.0
    seen(first, 1, ELSEWHERE, beat=2)  # process 2 shows what it showed before
    seen(first, 2, ELSEWHERE)
    hear()
    assert first.lost() == peers.lost() == [2]
    seen(first, 2, ELSEWHERE, beat=2)
    hear()
    assert first.lost() == peers.lost() == []
    now[0] += 11.0
    peers._take_summary(peers._summary)  # process 0 is frozen: nothing new of it
    assert peers.lost() == [0]
    hear()
    seen(first, 1, ELSEWHERE, beat=3)
    seen(first, 2, ELSEWHERE, beat=3)
    hear()
    assert peers.lost() == []
    peers._store_fails = True  # which process 0 has
    assert peers.lost() == [0]
    seen(peers, 2, DEAD)
    assert peers.lost() == [2]
    peers._named = [0]  # what another process found first
    assert peers.lost() == [0]


def test_which_errors_are_of_a_lost_process(monkeypatch):
    monkeypatch.setattr("experiments.distributed.lost_peers.PATIENCE_SECONDS", 0.0)

    def raised(peers, error):
        with pytest.raises(Exception) as caught, peers.errors():
            raise error
        return caught.value

    alone = Alone()
    peers = Peers(alone)
    gloo = ValueError("Gloo AllReduce failed: [pair.cc:534] Connection closed by peer [::1]:7")
    assert "it is not known which" in str(raised(peers, gloo))
    # An error that has nothing to do with it stays, until a process is lost, and after.
    wrong = ValueError("shapes differ")
    assert raised(peers, wrong) is wrong
    pipe = BrokenPipeError("Broken pipe")
    assert raised(peers, pipe) is pipe
    seen(peers, 2, ELSEWHERE)
    seen(peers, 0, DEAD)
    assert raised(peers, wrong) is wrong
    told = raised(peers, gloo)
    assert isinstance(told, PeerLostError) and told.__cause__ is gloo
    assert f"process 0 ({DEAD}) is lost" in str(told)
    assert alone.put_there == {"lost": "[0]"}  # so that the others name the same
    one = Peers(Alone())
    one._processes.count = 1
    assert raised(one, gloo) is gloo


def test_an_abort_of_something_else_stays_one(tmp_path):
    code = """
import os
from experiments.distributed.runtime_aborts import answered_aborts
with answered_aborts(lambda: "", 5):
    os.abort()
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE)
    assert child.returncode == -signal.SIGABRT
