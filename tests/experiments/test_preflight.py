"""Preflight finds what a run lacks before its first step, a line each."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import namedtuple

import numpy as np
import pytest

pytest.importorskip("gcsfs", reason="the extra gcs is not installed")

from cli_commands import ROOT, main_of
from gcs_emulator import serving
from prepared_sources import picture
from test_processes import free_address

from clip_jax import InputError
from experiments.data import shard_readers, vocabulary
from experiments.data.preparation import prepare
from experiments.data.shard_readers import ReaderPool
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.data.vocabulary import sample_rows, sample_texts, train_tokenizer
from experiments.distributed.processes import Processes
from experiments.start_checks import data, hours, processes, storage
from experiments.train import train

RECORDS, SHARDS = 1000, 334
PATIENCE = 400
RUCLIP = [
    "vit_base_patch32_224", "vit_base_patch16_224", "vit_large_patch14_224",
    "vit_base_patch32_384", "vit_base_patch16_384", "vit_large_patch14_336",
]  # fmt: skip
LARGE = [*(f"ruclip_{name}" for name in RUCLIP), "rudolph_350m", "rudolph_1_3b", "rudolph_2_7b"]
DISK = namedtuple("DISK", "total used free")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A thousand pairs in 334 shards."""
    folder = tmp_path_factory.mktemp("pairs")
    images = [picture(i) for i in range(8)]
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i in range(RECORDS):
            (folder / "0.jpg").write_bytes(images[i % 8])
            (folder / "0.txt").write_text(f"картинка {i}, снятая {i % 31} мая", encoding="utf-8")
            tar.add(folder / "0.jpg", f"{i:04d}.jpg")
            tar.add(folder / "0.txt", f"{i:04d}.txt")
    (folder / "tars").mkdir()
    (folder / "0.tar").rename(folder / "tars" / "0.tar")
    rules = WriteConfig(shard_records=3, inspect=False)
    prepare(SourceConfig(str(folder / "tars")), folder / "set", rules, workers=1)
    return folder / "set"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A vocabulary of forty pieces."""
    file = tmp_path_factory.mktemp("words") / "tokenizer.model"
    file.write_bytes(train_tokenizer(["картинка, снятая 1234567890 мая"], 40).model)
    return file


@pytest.fixture(scope="module")
def store(pairs):
    """The emulator, with the pairs in "gs://bucket/pairs"."""
    with serving() as store:
        before = dict(os.environ)
        os.environ.update(store.environment)
        for file in pairs.iterdir():
            if file.is_file():
                store.put(f"pairs/{file.name}", file.read_bytes())
        yield store
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def run(pairs, capsys):
    """run(*arguments) -> status, rows by name, lines of errors; of a small config on the pairs."""

    def run(*arguments, config="digits"):
        given = [
            f"--config=experiments/configs/{config}.py", f"--config.data.name={pairs}", *arguments
        ]  # fmt: skip
        status = main_of("experiments.preflight")(given)
        printed = capsys.readouterr()
        rows = {}
        for line in printed.out.splitlines():
            name, verdict, text = filter(None, line.split("  "))
            rows[name] = verdict.strip(), text.strip()
        return status, rows, printed.err.splitlines()

    return run


SMALL = ("--config.evaluators=()", "--config.data.in_memory=False")


@pytest.mark.parametrize("name", LARGE)
def test_large_configs(name, run, store, words, ruclip, small_vqgan_folder):
    """The documented commands on a thousand pairs in a bucket; an image tokenizer of 2x2 codes."""
    given = ["--workdir=gs://bucket/run", "--config.data.name=gs://bucket/pairs"]
    if name.startswith("rudolph"):
        given += [
            f"--config.settings.vqgan={small_vqgan_folder}", "--config.model.image_vocab_size=24",
            "--config.model.image_tokens_per_side=2",
        ]  # fmt: skip
    elif name != "ruclip_vit_large_patch14_224":
        given.append(f"--config.init.folder={ruclip}")
    continued = name.endswith(("384", "336"))  # with the vocabulary of what they begin from
    given += [] if continued else [f"--config.data.vocabulary={words}"]
    status, rows, errors = run(*given, "--step-seconds=0.9", config=name)
    assert (status, errors) == (0, []), rows
    assert rows["data"] == ("ok", "1,000 records in 334 shards")
    assert rows["vocabulary"][1].startswith(str(ruclip if continued else words))
    assert "64 rows in" in rows["first rows"][1] and "input_ids int32" in rows["first rows"][1]
    assert rows["workdir"] == ("ok", "gs://bucket/run: written and read")
    expected = {"ruclip_vit_large_patch14_224": "95.0 of 380,000 steps of 0.9 s, by --step-sec"}
    assert expected.get(name, "") in rows["hours"][1]
    assert not store.names("run/")


Device = namedtuple("Device", "device_kind")
LITE = 256 * [Device("TPU v5 lite")]


def test_hours_of_the_planner(tmp_path, monkeypatch):
    """The table says whose step time it was: the option's, this slice's, another's, nobody's."""
    from experiments.configs import ruclip_vit_base_patch16_224, rudolph_350m

    rows = [
        {"program": "train ruclip-vit-base-patch16-224", "slice": "v5e:16x16", "before": None,
         "after": {"ms": 225.0}},
        {"program": "train ruclip-vit-base-patch16-224", "slice": "v6e:16x16", "before": None,
         "after": {"ms": 90.0}},
        {"program": "train 350M", "slice": "v5e:16x16", "before": None, "after": {"ms": None}},
        {"program": "decode 350M batch 32", "slice": "v5e:1", "before": None, "after": {"ms": 1.0}},
    ]  # fmt: skip
    monkeypatch.setattr(hours, "ESTIMATES", tmp_path / "accelerators.json")
    config = ruclip_vit_base_patch16_224.train_config()
    assert hours.describe_hours(config, None, LITE).startswith("unknown: 140,000 steps")  # no file
    hours.ESTIMATES.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    found = hours.describe_hours(config, None, LITE)
    assert found.startswith("8.8 of 140,000 steps of 0.225 s, by docs/accelerators.json for v5e:16")
    assert "this slice" in found and "v6e" not in found
    found = hours.describe_hours(config, None, LITE[:64])
    assert "for v5e:16x16, not these devices" in found and "3.5 of 140,000 steps of 0.09" in found
    found = hours.describe_hours(config, 0.5, LITE)
    assert found.startswith("19.4 of 140,000 steps of 0.5 s, by --step-seconds")
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=16_384))
    wider = dataclasses.replace(config, compute=dataclasses.replace(config.compute, remat="none"))
    for each in (other, wider, rudolph_350m.train_config()):
        assert hours.describe_hours(each, None, LITE).startswith("unknown: ")
    rows[0]["after"]["settings"] = {"mesh.fsdp": 32, "grad_accum_steps": 1}
    hours.ESTIMATES.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    assert ", this slice, with config.mesh.fsdp=32, " in hours.describe_hours(config, None, LITE)
    same = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, fsdp=32))
    assert "this slice, evaluations" in hours.describe_hours(same, None, LITE)


def test_estimates_are_of_experiment_files():
    """Each row of a training step finds the config that it was compiled from."""
    rows = json.loads(hours.ESTIMATES.read_text("utf-8"))["rows"]
    steps = [row for row in rows if row["program"].startswith("train ") and row["after"]["ms"]]
    assert steps
    for row in steps:
        config = hours.program_config(row["program"])
        assert hours.estimates(config)[row["slice"]].seconds == row["after"]["ms"] / 1000
        assert set(row["after"]["settings"]) == {"mesh.fsdp", "grad_accum_steps"}


def test_sizes_of_checkpoints():
    """ViT-B/32: 0.61 GB of parameters and twice as much of moments."""
    from experiments.config.run import TrainConfig
    from experiments.configs import ruclip_vit_base_patch32_224
    from experiments.objectives import make_objective
    from experiments.training import partitioning

    config = ruclip_vit_base_patch32_224.train_config()
    assert isinstance(config, TrainConfig)
    objective = make_objective(config, partitioning.make_mesh(config.mesh))
    assert storage.checkpoint_bytes(config, objective) == pytest.approx(605109252 + 1210218520, 100)


@pytest.mark.parametrize(
    "given,name,expected",
    [
        ("--workdir=gs://missing/run", "workdir", "gs://missing/run"),
        ("--workdir=gs://read-only/run", "workdir", "Permission denied"),
        ("--config.data.name=gs://missing/pairs", "data", "gs://missing/pairs"),
        ("--config.data.vocabulary=absent/tokenizer.model", "vocabulary", "absent/tokenizer.model"),
        ("--config.data.batch_size=12", "batch size", "expected a multiple of 8"),
        ("--config.init.folder=absent", "initial weights", "absent: not a model folder"),
    ],
)
def test_one_line_each(run, store, tmp_path, monkeypatch, given, name, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    status, rows, errors = run(f"--workdir={tmp_path}/run", *SMALL, given)
    assert status == 2 and rows[name][0] == "error"
    line = next(line for line in errors if line.startswith(f"error: {name}: "))
    assert expected in line
    others = {"initial weights"} if name == "vocabulary" else {"vocabulary"}
    assert {line.split(": ")[1] for line in errors} <= {name, *others}
    assert not (tmp_path / "run").exists()  # nothing is left


def test_errors_are_listed_together(run, tmp_path):
    status, rows, errors = run(
        f"--workdir={tmp_path}/run", *SMALL, "--config.data.batch_size=12",
        f"--config.data.vocabulary={tmp_path}/absent",
    )  # fmt: skip
    assert status == 2 and len(errors) == 2
    verdicts = [rows[name][0] for name in ("batch size", "vocabulary", "data")]
    assert verdicts == ["error", "error", "ok"]


def small(train_config, pairs, **changes):
    read = dataclasses.replace(train_config.data, name=str(pairs), split="train", batch_size=8)
    read = dataclasses.replace(read, in_memory=False)
    return dataclasses.replace(train_config, data=read, evaluators=(), steps=1, **changes)


def test_training_without_its_vocabulary(train_config, pairs, tmp_path):
    config, absent = small(train_config, pairs), str(tmp_path / "absent" / "tokenizer.model")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, vocabulary=absent))
    with pytest.raises(InputError, match="absent/tokenizer.model"):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_full_disk(run, train_config, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(10**9, 10**9 - 1000, 1000))
    status, rows, errors = run(f"--workdir={tmp_path}/run", *SMALL)
    assert status == 2 and len(errors) == 1
    assert "free space: " in errors[0] and "0.000 GB are free; expected 0.03" in errors[0]
    with pytest.raises(InputError, match="are free; expected"):
        train(small(train_config, pairs), tmp_path / "train")
    assert not (tmp_path / "train" / "checkpoints").exists()


def test_kept_checkpoints_count_as_room(train_config, pairs, tmp_path, monkeypatch):
    config = small(train_config, pairs)
    config = dataclasses.replace(config, steps=100, checkpoint_every=10, keep_checkpoints=3)
    from experiments.objectives import make_objective
    from experiments.training import partitioning

    objective = make_objective(config, partitioning.make_mesh(config.mesh))
    size, model = storage.checkpoint_bytes(config, objective), storage._bytes(
        objective.abstract_params
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(0, 0, 2 * size + model))
    with pytest.raises(InputError, match="4 checkpoints of"):
        storage.check_space(config, objective, tmp_path)
    for step in (10, 20):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    storage.check_space(config, objective, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(0, 0, 2 * size + model - 1))
    with pytest.raises(InputError, match="2 checkpoints of"):
        storage.check_space(config, objective, tmp_path)


def test_a_limit_of_256_files(pairs, words, tmp_path):
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", sys.executable, "-m",
         "experiments.preflight", "--config=experiments/configs/digits.py", *SMALL,
         f"--workdir={tmp_path}/run", f"--config.data.name={pairs}",
         f"--config.data.vocabulary={words}"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("open files"))
    assert "warning  a limit of 256 open files leaves 128 of 334 shards open at a time" in line


def test_training_with_few_open_files(train_config, pairs, tmp_path, monkeypatch, capsys):
    """Said before the first step, which this run does not come to."""

    class StepsBegin(Exception):
        pass

    pool, opened = ReaderPool(7), []

    def make_optimizer(*_):
        opened.append(len(pool))  # the vocabulary was trained from all shards
        raise StepsBegin

    for module in (data, shard_readers):
        monkeypatch.setattr(module, "shared_pool", lambda: pool)
    monkeypatch.setattr("experiments.train.make_optimizer", make_optimizer)
    with pytest.raises(StepsBegin):
        train(small(train_config, pairs), tmp_path / "run")
    assert "leaves 7 of 334 shards open at a time" in capsys.readouterr().err
    assert opened == [7] and not len(pool)


def test_too_few_files(pairs, monkeypatch):
    monkeypatch.setattr(data, "raise_file_limit", lambda: 100)
    with pytest.raises(InputError, match="may open 100 files; expected at least 128: ulimit -n"):
        data.check_open_files(Split(pairs, "train"))


def test_a_missing_shard(pairs, train_config, tmp_path):
    copy = tmp_path / "set"
    shutil.copytree(pairs, copy)
    (copy / "prepared-train.array_record-00333-of-00334").unlink()
    with pytest.raises(InputError, match="00333-of-00334: no such file; expected 334 shards"):
        train(small(train_config, copy), tmp_path / "run")
    (copy / "prepared-train.array_record-00007-of-00334").unlink()
    with pytest.raises(InputError, match="00007-of-00334: no such file; expected 334 shards"):
        data.check_shards(Split(copy, "train"))


def test_images_that_no_memory_holds(train_config, pairs, monkeypatch):
    config = small(train_config, pairs)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, in_memory=True))
    split = Split(pairs, "train")
    assert "images in memory 0.0" in data.check_memory(config, split)
    monkeypatch.setattr(os, "sysconf", lambda name: 1000)  # a machine of 1 MB
    with pytest.raises(InputError, match="the machine has 0.0 GB; expected --config.data.in_mem"):
        data.check_memory(config, split)


CHILD = """
import sys
from experiments.start_checks import processes
if sys.argv[2] == "1":
    right = processes.library_versions
    processes.library_versions = lambda: {**right(), "optax": "0.0.1"}
from experiments import preflight, train
sys.exit({"train": train, "preflight": preflight}[sys.argv[1]].main(sys.argv[3:]))
"""


@pytest.mark.parametrize("command", ["preflight", "train"])
def test_unequal_versions(command, pairs, tmp_path):
    address = free_address()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, command, str(index), f"--distributed={address},2,{index}",
             "--config=experiments/configs/digits.py", f"--workdir={tmp_path}/run", *SMALL,
             f"--config.data.name={pairs}"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=PATIENCE) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, printed, strict=True):
        assert process.returncode == 2, errors
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "process 1 has optax 0.0.1, process 0 has" in lines[0]
    if command == "preflight":
        assert "versions" in printed[0][0] and not printed[1][0]
        assert "1,000 records in 334 shards" in printed[0][0]  # the other checks go on
    assert not (tmp_path / "run").exists()


class Others(Processes):
    """Stand for processes that reply what `replies` has."""

    def __init__(self, *replies):
        self.index, self.count, self.first, self.replies = 0, len(replies), True, replies

    def barrier(self, name):
        pass

    def gather(self, value):
        return [reply or value for reply in self.replies]


def test_clocks():
    now = time.time()
    assert "apart" in processes.check_clocks(Others("", repr(now + 20)))
    with pytest.raises(InputError, match="the clock of process 2 is 6. s off that of process 0"):
        processes.check_clocks(Others("", repr(now), repr(now - 65)))


def test_versions_name_the_first_that_differs():
    mine = processes.library_versions()
    assert mine["jax"] == __import__("jax").__version__ and mine["libtpu"]
    processes.check_versions(Others("", json.dumps(mine)))
    other = json.dumps({**mine, "jax": "0.9.0"})
    with pytest.raises(InputError, match="process 1 has jax 0.9.0, process 0 has"):
        processes.check_versions(Others("", other))


def test_a_sample_of_rows():
    assert sample_rows(5, 9) == range(5) and list(sample_rows(5, 5)) == [0, 1, 2, 3, 4]
    found = sample_rows(240_000_000, 1000)
    assert len(set(found)) == 1000 and found == sorted(found) == sample_rows(240_000_000, 1000)
    np.testing.assert_allclose(np.mean(found), 120_000_000, rtol=0.1)


def test_a_vocabulary_of_a_sample(pairs, monkeypatch):
    split = Split(pairs, "train")
    whole = [row["captions"][0] for row in split]
    assert list(sample_texts(split, RECORDS)) == whole
    some = list(sample_texts(split, 50, threads=32))
    assert some == [whole[i] for i in sample_rows(RECORDS, 50)] and len(set(some)) == 50
    monkeypatch.setattr(vocabulary, "CHUNK_ROWS", 10)
    assert list(sample_texts(split, 50)) == some
    with pytest.raises(InputError, match="10 of 50 rows for a vocabulary took 0 s; name one by"):
        list(sample_texts(split, 50, seconds=0.0))
