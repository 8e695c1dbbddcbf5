"""One run at a time in a folder, and a folder that goes away under a run."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import jax
import pytest

from clip_jax import InputError
from clip_jax.atomic_file import replace_file, replacing
from experiments import train as train_module
from experiments.cli.exit_status import STORAGE, StorageError, exit_status
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.sweep import Sweep, run_sweep
from experiments.train import train
from experiments.training import loop
from experiments.training.checkpoint import Checkpoints
from experiments.training.metrics import MetricsWriter
from experiments.workdir import lock
from experiments.workdir.lock import FILE_NAME, RunLock
from experiments.workdir.process_identity import ProcessIdentity

HOLD = """
import sys
from experiments.workdir.lock import RunLock
lock = RunLock(sys.argv[1])
lock.acquire()
print("there", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process of its own that holds the lock of tmp_path / "run"."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout.readline() == "there\n"
        yield child
        child.kill()


def taken_by(folder, beat=0, **fields):
    """Writes the lock file of a holder on another machine."""
    folder.mkdir(exist_ok=True)
    held = {"host": "elsewhere", "machine": "b", "pid": 7, "started": "1", "command": "train.py"}
    held |= {"since": "2026-01-02T03:04:05+00:00", "token": "ab", "beat": beat, **fields}
    (folder / FILE_NAME).write_text(json.dumps(held), encoding="utf-8")


def test_the_second_is_refused_with_who_holds_it_and_let_in_after(holder, tmp_path):
    lock = RunLock(tmp_path / "run")
    who = re.escape(f"process {holder.pid} on {os.uname().nodename}, since 20")
    with pytest.raises(InputError, match=f"in use by {who}.*; end that run, or name another"):
        lock.acquire()
    # What was refused leaves the holder's lock alone.
    assert json.loads((tmp_path / "run" / FILE_NAME).read_text())["pid"] == holder.pid
    holder.stdin.close()
    assert holder.wait() == 0
    assert not (tmp_path / "run").exists()  # nothing came of it
    with lock:
        assert json.loads((tmp_path / "run" / FILE_NAME).read_text())["pid"] == os.getpid()


def test_a_killed_holder_is_taken_over_at_once_in_one_line(holder, tmp_path):
    holder.kill()
    holder.wait()
    lines = []
    # A watch would outlast the test.
    with RunLock(tmp_path / "run", lines.append, stale_seconds=10_000):
        (line,) = lines
    assert f"lock taken over from process {holder.pid} on " in line and "has ended" in line


def test_a_process_number_that_another_process_has_now_is_no_holder(tmp_path):
    own = dataclasses.asdict(ProcessIdentity.own())
    taken_by(tmp_path / "run", **{**own, "started": "1"})
    with RunLock(tmp_path / "run", stale_seconds=10_000) as lock:
        lock.check()
    taken_by(tmp_path / "run", **own)
    with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        RunLock(tmp_path / "run").acquire()


def test_of_a_holder_elsewhere_only_its_number_counts_and_no_clock(tmp_path, monkeypatch):
    """The file's time and the holder's are years old; what is watched is whether it changes."""
    folder, beats, lines = tmp_path / "run", iter(range(1, 100)), []
    taken_by(folder)
    os.utime(folder / FILE_NAME, (1, 1))
    monkeypatch.setattr(lock.time, "sleep", lambda _: taken_by(folder, next(beats)))
    with pytest.raises(InputError, match="in use by process 7 on elsewhere, since 2026-01-02T03"):
        RunLock(folder, lines.append, stale_seconds=10_000).acquire()
    assert "locked by process 7 on elsewhere" in lines[0]

    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(lock.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(lock.time, "sleep", lambda _: None)
    with RunLock(folder, lines.append):
        assert "not renewed for 60 s" in lines[-1]
    assert next(now) == 80  # begun at 0 and watched for longer than 60, ten a look


@pytest.mark.parametrize("text", ["{", "[]", '{"host": 1}', "\0" * 9])
def test_a_file_that_is_no_lock_is_watched_too(tmp_path, text, monkeypatch):
    (tmp_path / FILE_NAME).write_text(text)
    lines = []
    with RunLock(tmp_path, lines.append, stale_seconds=0.0):
        assert "taken over from an unreadable file" in lines[-1]


def test_one_that_was_killed_before_it_wrote_holds_nothing(tmp_path):
    (tmp_path / FILE_NAME).touch()
    with RunLock(tmp_path, stale_seconds=10_000) as lock:
        lock.check()


def test_of_many_at_once_one_takes_over(tmp_path):
    dead = {**dataclasses.asdict(ProcessIdentity.own()), "started": "1"}
    for _ in range(20):
        taken_by(tmp_path / "run", **dead)
        together, got = threading.Barrier(6), []

        def attempt(together=together, got=got):
            lock = RunLock(tmp_path / "run", lambda _: None)
            together.wait()
            try:
                lock.acquire()
                got.append(lock)
            except InputError:
                pass

        threads = [threading.Thread(target=attempt) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (lock,) = got
        lock.check()
        lock.release()


def test_renewed_until_it_is_lost(tmp_path):
    folder = tmp_path / "run"
    lock = RunLock(folder, renewal_seconds=10_000)
    lock.acquire()
    before = json.loads((folder / FILE_NAME).read_text())
    lock.renew()
    assert json.loads((folder / FILE_NAME).read_text()) == {**before, "beat": 1}
    taken_by(folder)
    lock.renew()
    assert "taken over by process 7 on elsewhere" in lock.problem_found
    with pytest.raises(StorageError, match="taken over by process 7 on elsewhere"):
        lock.check()
    lock.release()
    assert (folder / FILE_NAME).exists()  # the other's

    lock = RunLock(tmp_path / "second", renewal_seconds=0.01)
    lock.acquire()
    shutil.rmtree(tmp_path / "second")
    lost = threading.Event()
    for _ in range(1000):  # the thread finds it
        if lock.problem_found or lost.wait(0.01):
            break
    assert lock.problem_found == "its lock was removed"
    lock.release()
    assert not (tmp_path / "second").exists()


def one(config, folder):
    return train(config, folder, devices=jax.devices()[:1])


def test_a_second_run_of_one_folder_changes_nothing_there(train_config, holder, tmp_path):
    with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
        one(train_config, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE_NAME]


def test_siblings_hold_their_folders_too(train_config, holder, tmp_path):
    with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
        run_sweep(Sweep(tmp_path / "run", (), (0,)))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "table.csv").write_text("image,caption\nред.png,a\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
        prepare(SourceConfig(source=str(pictures)), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE_NAME]


def remove(folder):
    shutil.rmtree(folder)


def replace(folder):
    """The new folder would have the old one's inode where nothing holds that."""
    shutil.rmtree(folder)
    folder.mkdir()


def move(folder):
    folder.rename(folder.with_name("moved"))


def before_metrics(patch, work):
    """Between two lines of metrics.jsonl; no checkpoint is due."""
    real = MetricsWriter.write

    def write(self, step, values):
        real(self, step, values)
        if step == 2:
            work()

    patch.setattr(MetricsWriter, "write", write)
    return 0


def before_save(patch, work):
    """Just before the second checkpoint; the metrics of its step are written already."""
    real = loop.Loop._save

    def save(self):
        if self.current.number == 4:
            self.checkpoints.wait()
            work()
        real(self)

    patch.setattr(loop.Loop, "_save", save)
    return 2


def in_last_save(patch, work):
    """After the last check of the loop, while nothing but the model is left to write."""
    real = Checkpoints.save

    def save(self, step, *args):
        real(self, step, *args)
        if step == 5:
            self.wait()
            work()

    patch.setattr(Checkpoints, "save", save)
    return 2


CASES = [(before_metrics, remove, ""), (in_last_save, replace, "")]
MORE = [
    (before_metrics, replace, "checkpoints"), (before_save, replace, "checkpoints"),
    (before_save, move, ""), (before_save, remove, "checkpoints"), (in_last_save, remove, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "do", "what"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_a_folder_that_goes_away_is_an_error_at_the_next_write(
    train_config, tmp_path, monkeypatch, capsys, when, do, what
):
    workdir = tmp_path / "run"
    every = when(monkeypatch, lambda: do(workdir / what))
    config = dataclasses.replace(train_config, steps=5, checkpoint_every=every)
    assert exit_status(lambda: one(config, workdir)) == STORAGE
    *_, line = capsys.readouterr().err.splitlines()
    where = re.escape(str(workdir / what))
    assert re.match(f"error: {where}: was removed, moved or replaced while the run wrote ", line)
    # Nothing is put where the folder was.
    left = sorted(path.name for path in workdir.iterdir()) if workdir.exists() else []
    assert "model" not in left and "metrics.jsonl" not in ([] if what else left), left


def test_a_run_that_comes_to_nothing_leaves_no_lock(train_config, tmp_path, monkeypatch):
    def wrong(*_):
        assert (tmp_path / "run" / FILE_NAME).exists()
        raise InputError("wrong")

    monkeypatch.setattr(train_module, "make_run_objective", wrong)
    with pytest.raises(InputError, match="wrong"):
        one(train_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_writers_of_one_file_each_write_beside(tmp_path):
    file = tmp_path / "a.json"
    with replacing(file) as first:
        first.write_text("half of a")
        replace_file(file, "whole")
        assert file.read_text() == "whole"
        first.write_text("whole too")
    assert file.read_text() == "whole too"
    with pytest.raises(KeyError), replacing(file) as beside:
        beside.write_text("half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
