"""Preparation by a Ray cluster of this machine: killed workers and drivers, the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from prepared_sources import picture

from clip_jax import InputError
from experiments.cli.exit_status import PeerLostError
from experiments.data.preparation import prepare
from experiments.data.ray_engine import RayEngine, parse_engine
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.prepare import main

TWO = WriteConfig(shard_records=2, max_side=64, validation=0.3)
OPTIONS = ["--shard-records=2", "--max-side=64", "--validation=0.3", "--workers=2"]
CHUNKS = 20


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Forty large images, of which one cannot be read, in twenty chunks."""
    folder = tmp_path_factory.mktemp("source")
    image = picture(0, size=(1600, 1200))
    for i in range(2 * CHUNKS):
        (folder / f"{i}.jpg").write_bytes(image[:40] if i == 9 else image)
    rows = [f"{i}.jpg,подпись {i}" for i in range(2 * CHUNKS)]
    (folder / "list.csv").write_text("\n".join(["image,caption", *rows]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out"
    prepare(SourceConfig(str(source)), out, TWO)
    return contents(out)


def contents(out):
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in out.rglob("*")
        if file.is_file()
    }


def start(source, out):
    command = [sys.executable, "-m", "experiments.prepare", str(source), str(out)]
    return subprocess.Popen(
        [*command, *OPTIONS, "--engine=ray"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def wait_for_chunks(out, count, process):
    """Returns when so many chunks are whole."""
    until = time.monotonic() + 120
    while len(list((out / "unfinished").glob("piece-*.json"))) < count:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)


def descendants(parent):
    """{process: its title} of all that a process has started."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            title = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            found[int(stat.parent.name)] = int(fields[1]), title
        except (OSError, UnicodeDecodeError):
            continue
    below, added = {parent}, True
    while added:
        added = {pid for pid, (of, _) in found.items() if of in below} - below
        below |= added
    return {pid: found[pid][1] for pid in below if pid in found}


def test_a_worker_is_killed_then_the_driver(source, tmp_path, expected):
    out = tmp_path / "out"
    first = start(source, out)
    wait_for_chunks(out, 2, first)
    workers = [pid for pid, title in descendants(first.pid).items() if "ray::write_chunk" in title]
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for_chunks(out, 6, first)  # by new ones
    first.kill()
    first.communicate()
    there = len(list((out / "unfinished").glob("piece-*.json")))
    assert 6 <= there < CHUNKS and not (out / "dataset_info.json").exists()
    second = start(source, out)
    _, said = second.communicate(timeout=200)
    assert second.returncode == 7, said.decode()  # of the image that cannot be read
    assert f"of {CHUNKS} chunks are there already" in said.decode()
    assert contents(out) == expected


def test_an_address_where_nothing_is(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "out"), "--engine=ray:127.0.0.1:9"]) == 2
    error = capsys.readouterr().err
    assert "no Ray cluster at 127.0.0.1:9 (" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def engine():
    """A cluster of this machine's own for several tests: it takes seconds to start."""
    with RayEngine("", 2) as engine:
        yield engine


def test_codes(source, tmp_path, small_vqgan_folder, engine, monkeypatch):
    monkeypatch.setattr(RayEngine, "__enter__", lambda own: own)  # the cluster is there
    monkeypatch.setattr(RayEngine, "__exit__", lambda *_: None)
    config, codes = SourceConfig(str(source)), {"vqgan": small_vqgan_folder, "image_size": 8}
    prepare(config, tmp_path / "expected", TWO, **codes)
    prepare(config, tmp_path / "out", TWO, workers=2, engine="ray", **codes)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_errors_of_tasks_are_those_of_processes(engine):
    def fail(error):  # inside, so that Ray takes it along
        raise error

    for error, kind, said in (
        (InputError("found nothing"), InputError, "found nothing"),
        (FileNotFoundError("gone"), FileNotFoundError, "gone"),
        (KeyError("a"), PeerLostError, "KeyError: 'a'; each of its machines needs"),
    ):
        with pytest.raises(kind, match=said):
            list(engine._run(fail, {"num_cpus": 1}, iter([(error,)])))


@pytest.mark.parametrize("text", ["spark", "ray:", "rayx", "Ray", ":a"])
def test_engines_that_there_are_not(text):
    with pytest.raises(InputError, match="expected ray or ray:ADDRESS"):
        parse_engine(text)
    assert parse_engine("") is None and parse_engine("ray") == ""
    assert parse_engine("ray:ray://head:10001") == "ray://head:10001"


def test_without_the_package(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([str(source), str(tmp_path / "out"), "--engine=ray"]) == 2
    assert "pip install 'rudolph-jax[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
