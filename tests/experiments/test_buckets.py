"""Runs and models in a bucket of an emulator on loopback."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gcsfs", reason="the extra gcs is not installed")

import jax
from cli_commands import ROOT, main_of
from prepared_sources import picture
from small_run import SmallRun, same
from training_processes import PATIENCE, end, start_training

import clip_jax
import converters
import rudolph_jax
from clip_jax import InputError
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.paths import as_path, local_copy, upload
from experiments.cli.exit_status import STORAGE
from experiments.data.sample_ids import read_ids
from experiments.data.source import build_builtin_set
from experiments.training.metrics import read_metrics

CHILD = """
import sys
sys.path.append(sys.argv[1])
from prepared_sources import picture
from small_run import SmallRun
SmallRun()(sys.argv[2])
"""


@pytest.fixture(scope="module")
def digits(store, data_directory):
    """Puts the digits into "gs://bucket/digits"."""
    for file in build_builtin_set("digits_ru", data_directory).iterdir():
        store.put(f"digits/{file.name}", file.read_bytes())


@pytest.fixture
def config(train_config):
    return dataclasses.replace(
        train_config,
        data=dataclasses.replace(
            train_config.data, name="gs://bucket/digits", batch_size=8, log_ids=True
        ),
        model=dataclasses.replace(
            train_config.model,
            vision=dataclasses.replace(train_config.model.vision, layers=1),
            text=dataclasses.replace(train_config.model.text, layers=1),
        ),
        steps=4,
        checkpoint_every=2,
        evaluate_every=2,
        evaluators=("retrieval:validation",),
    )


def test_two_processes(store, digits, config, tmp_path):
    """They share a workdir, data and compiled programs in the bucket."""
    running = start_training(
        config, "gs://bucket/run", 2, tmp_path, JAX_COMPILATION_CACHE_DIR="gs://bucket/programs"
    )
    try:
        for index, process in enumerate(running):
            message = (tmp_path / f"messages-{index}").read_text("utf-8")
            assert process.wait(PATIENCE) == 0, message
    finally:
        end(running)
    rows = read_metrics("gs://bucket/run")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "retrieval:validation/top1" in row] == [2, 4]
    assert [len(ids) for ids in read_ids("gs://bucket/run").values()] == 4 * [8]
    for index in range(2):
        assert store.names(f"run/checkpoints/4/params/ocdbt.process_{index}/")
        assert store.names(f"run/ids/process-{index}.")
    assert not [name for name in store.names("run/") if "lock" in name or "shared" in name]
    assert len(store.names("run/tensorboard/")) == 1
    assert any(name.endswith("-cache") for name in store.names("programs/"))
    assert not list(tmp_path.glob("gs:*"))
    assert main_of("experiments.model")(["gs://bucket/run", "gs://bucket/last"]) == 0
    last, model = (clip_jax.load(f"gs://bucket/{name}") for name in ("last", "run/model"))
    jax.tree.map(np.testing.assert_array_equal, last.params, model.params)
    assert last.processor.tokenizer.model == store.content("run/tokenizer.model")


def test_killed_in_a_save_and_resumed(store, tmp_path, monkeypatch):
    """A checkpoint counts from its last object on; the resumed run is bit-equal."""
    children = []

    def run_killed_at(number, ending):
        """Kills a child at its number-th object of checkpoint 4 with this ending."""
        seen = []

        def kill(name):
            if name.startswith("killed/checkpoints/4") and name.endswith(ending):
                seen.append(name)
                if len(seen) == number:
                    children[-1].send_signal(signal.SIGKILL)
                    children[-1].wait()
                    raise ConnectionAbortedError  # the upload is never complete

        monkeypatch.setattr(store, "before_write", kill)
        folder = str(Path(__file__).parent)
        children.append(
            subprocess.Popen([sys.executable, "-c", CHILD, folder, "gs://bucket/killed"])
        )
        assert children[-1].wait(PATIENCE) == -signal.SIGKILL
        assert not store.names("killed/checkpoints/4/commit_success.txt")

    run_killed_at(5, "")
    assert store.names("killed/checkpoints/4/")
    run_killed_at(1, "4/commit_success.txt")
    # A checkpoint's metrics are there before it is.
    assert [row["step"] for row in read_metrics("gs://bucket/killed")][:4] == [1, 2, 3, 4]
    monkeypatch.setattr(store, "before_write", lambda name: None)
    resumed, whole = SmallRun()("gs://bucket/killed"), SmallRun()(tmp_path / "whole")
    assert same(resumed, whole)
    assert read_metrics("gs://bucket/killed") == read_metrics(tmp_path / "whole")


def test_models(store, goldens, small_rudolph, small_vqgan, tmp_path):
    converters.convert("ruclip", goldens / "ruclip", "gs://bucket/models/ruclip")
    assert not converters.verify("gs://bucket/models/ruclip").faults
    assert store.written[-1] == "models/ruclip/config.json"
    with pytest.raises(InputError, match="gs://bucket/models/ruclip: already exists"):
        converters.convert("ruclip", goldens / "ruclip", "gs://bucket/models/ruclip")
    converters.convert("ruclip", goldens / "ruclip", tmp_path / "here")
    converters.export(tmp_path / "here", tmp_path / "from-here")
    words = ["export", "gs://bucket/models/ruclip", str(tmp_path / "from-there")]
    assert main_of("converters")(words) == 0
    for name in ("bpe.model", "pytorch_model.bin", "config.json"):
        here, there = ((tmp_path / f"from-{place}" / name) for place in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()
    small_vqgan.save("gs://bucket/models/vqgan")
    small_rudolph.save("gs://bucket/models/rudolph")
    loaded = rudolph_jax.load("gs://bucket/models/rudolph", "gs://bucket/models/vqgan")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, small_rudolph.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.vqgan.params, dict(small_vqgan.params))
    assert loaded.tokenizer.model == small_rudolph.tokenizer.model
    damaged = bytearray(store.content("models/ruclip/tokenizer.model"))
    damaged[-1] ^= 1
    store.put("models/ruclip/tokenizer.model", bytes(damaged))
    with pytest.raises(InputError, match="tokenizer.model: digest differs"):
        clip_jax.load("gs://bucket/models/ruclip")


def test_bytes(store, tmp_path, monkeypatch):
    """Whatever they are; an upload of which a byte is lost is an error."""
    place, file = as_path("gs://bucket/bytes"), tmp_path / "bytes"
    for content in (b"", b"a\r", b"a\n", b"a\r\n", b"a\n--==0==--\r\n\r\nb", bytes(6 << 20)):
        place.write_bytes(content)
        assert store.content("bytes") == content == place.read_bytes()
        file.write_bytes(content)
        upload(file, place)
        with local_copy(place) as copy:
            assert store.content("bytes") == content == copy.read_bytes()
    put = store.put
    monkeypatch.setattr(store, "put", lambda name, content, bucket: put(name, content[:-1], bucket))
    for write in (lambda: place.write_bytes(b"abc"), lambda: upload(file, place)):
        with pytest.raises(OSError, match="checksum"):
            write()


TRAIN = "--config=experiments/configs/digits.py"


@pytest.mark.parametrize(
    "command, line, said",
    [
        ("experiments.train", f"{TRAIN} --workdir=gs://missing/run", "No such bucket"),
        ("experiments.train", f"{TRAIN} --workdir=gs://forbidden/run", "Permission denied"),
        ("experiments.train", f"{TRAIN} --workdir=gs://read-only/run", "Permission denied"),
        ("experiments.train", f"{TRAIN} --workdir={{T}}/run --config.data.name=gs://missing/set",
         "config.data.name is 'gs://missing/set'; expected"),
        ("experiments.train", f"{TRAIN} --workdir={{T}}/run --config.data.name=gs://forbidden/set",
         "Permission denied"),
        ("experiments.model", "gs://missing/run {T}/out", "no checkpoints here"),
        ("experiments.model", "gs://forbidden/run {T}/out", "Permission denied"),
        ("rudolph_jax", "write мир --model=gs://missing/model", "not a model folder"),
        ("rudolph_jax", "write мир --model=gs://forbidden/model", "Permission denied"),
        ("converters", "ruclip {G}/ruclip gs://missing/model", "No such bucket"),
        ("converters", "ruclip {G}/ruclip gs://read-only/model", "Permission denied"),
    ],
)  # fmt: skip
def test_errors(store, command, line, said, goldens, tmp_path, monkeypatch, capsys):
    """One line, status 2, or 4 for a workdir that refuses; nothing is left on the disk."""
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    words = line.replace("{T}", str(tmp_path)).replace("{G}", str(goldens)).split()
    written = "--workdir=gs://" in line and "missing" not in line
    assert main_of(command)(words) == (STORAGE if written else 2)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "bucket, said", [("missing", "No such bucket"), ("forbidden", "Permission denied")]
)
def test_programs_for_a_bucket_that_is_not_there(store, bucket, said, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", f"gs://{bucket}/programs")
    with pytest.raises(InputError, match=f"_DIR: gs://{bucket}/programs: {said}"):
        enable_compilation_cache()


SHARING = """
import jax
from clip_jax.compilation_cache import enable_compilation_cache
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
enable_compilation_cache()
print(jax.jit(lambda x: (x @ x.T).sum() * 3)(jax.numpy.ones((3, 5))))
print(jax.config.jax_persistent_cache_enable_xla_caches)
print(sum(name.endswith("compilation_cache/cache_hits") for name in events))
"""


def test_programs_are_shared_by_a_bucket(store, tmp_path):
    """A second process, on whichever machine, reads what the first one compiled."""

    def compile_and_run():
        words = [sys.executable, "-c", SHARING]
        shared = {"JAX_COMPILATION_CACHE_DIR": "gs://bucket/shared-programs",
                  "XDG_CACHE_HOME": str(tmp_path / "cache"),
                  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
        done = subprocess.run(
            words, cwd=tmp_path, env={**os.environ, **shared, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
        return done.stdout.split()

    assert compile_and_run() == ["135.0", "none", "0"]
    programs = store.names("shared-programs/")
    assert any(name.endswith("-cache") for name in programs)
    store.written.clear()
    value, _, hits = compile_and_run()
    assert value == "135.0" and int(hits) >= 1
    assert store.names("shared-programs/") == programs
    assert not [name for name in store.written if name.endswith("-cache")]
    assert not list(tmp_path.iterdir())  # neither a folder "gs:" nor a local cache


def test_evaluate(store, goldens, tmp_path):
    """A model and a labelled set of the bucket; results go there too."""
    converters.convert("ruclip", goldens / "ruclip", "gs://bucket/models/evaluated")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(4):
            for name, data in ((f"{i}.jpg", picture(i)), (f"{i}.cls", str(i % 2).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    store.put("classes/test/0.tar", buffer.getvalue())
    store.put("classes/classnames.txt", "кот\nпёс\n".encode())
    line = "zero-shot --model=gs://bucket/models/evaluated --sets=gs://bucket/classes"
    line += f" --out=gs://bucket/results --cache={tmp_path}/cache"
    assert main_of("experiments.evaluate")(line.split()) == 0
    (name,) = [name for name in store.names("results/") if name.endswith(".json")]
    result = json.loads(store.content(name))
    assert result["set"] == "classes" and 4 * result["accuracy"] in range(5)


def test_a_lock_in_a_bucket(store):
    """One holder; a lock that is gone or taken ends the run; one of an ended process is free."""
    from experiments.cli.exit_status import StorageError
    from experiments.workdir.lock import RunLock

    said = []
    lock = RunLock("gs://bucket/locked", said.append)
    with lock:
        with pytest.raises(InputError, match="gs://bucket/locked: in use by process"):
            RunLock("gs://bucket/locked", said.append).acquire()
        lock.renew()
        lock.check()
        holder = json.loads(store.content("locked/.run.lock"))
        assert holder["beat"] == 1
        store.put("locked/.run.lock", json.dumps({**holder, "token": "another"}).encode())
        with pytest.raises(StorageError, match="its lock was taken over"):
            lock.check()
    ended = {**holder, "pid": 2**22 + 1}
    store.put("locked/.run.lock", json.dumps(ended).encode())
    with RunLock("gs://bucket/locked", said.append):
        assert "lock taken over from process 4194305" in said[-1]
    assert not store.names("locked/")
