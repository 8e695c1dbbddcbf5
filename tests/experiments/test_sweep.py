"""Sweeps of a few steps: what runs, what is not run again, what the table says, what is refused."""

import dataclasses
import json
import statistics

import jax
import pytest

from clip_jax import InputError
from clip_jax.command import WRONG_INPUT
from experiments import sweep as sweep_module
from experiments.cli.exit_status import DIVERGED, DivergedError
from experiments.config.data import AugmentConfig
from experiments.config.run import TrainConfig
from experiments.sweep import Sweep, main, parse, run_sweep
from experiments.sweeping.plot import plot
from experiments.sweeping.results import Result, Row, default_metrics, table
from experiments.sweeping.throughput import steps_per_second
from experiments.sweeping.variants import make_variants, parse_grid
from experiments.training.metrics import last_metrics, read_metrics

LOSS = "train/loss"
FILE = """
from experiments.config.run import TrainConfig

def get_config():
    return TrainConfig().to_config_dict()
"""


@pytest.fixture
def base(train_config):
    model = train_config.model
    small = dataclasses.replace(
        model,
        vision=dataclasses.replace(model.vision, layers=1),
        text=dataclasses.replace(model.text, layers=1),
    )
    data = dataclasses.replace(train_config.data, augment=AugmentConfig(shift=1))
    return dataclasses.replace(train_config, model=small, data=data, steps=2, checkpoint_every=0)


@pytest.fixture
def experiment_file(tmp_path):
    """Writes one, with `more` at its end."""

    def write(more=""):
        file = tmp_path / "experiment.py"
        file.write_text(FILE + more, encoding="utf-8")
        return file

    return write


def test_runs_goes_on_and_tells_the_runs_own_numbers(base, tmp_path, monkeypatch, capsys):
    """Two variants of two seeds; one run diverges, one is interrupted."""
    trained, real = [], sweep_module.train

    def train(config, folder):
        trained.append((config.data.augment.shift, config.seed))
        if trained.count((2, 1)) == 1 and trained[-1] == (2, 1):
            raise KeyboardInterrupt
        if trained[-1] == (2, 0):
            raise DivergedError("step 1: loss is nan")
        return real(config, folder, jax.devices()[:1])  # one compiles sooner than eight

    monkeypatch.setattr(sweep_module, "train", train)
    variants = make_variants(base, {"plain": {}, "shifted": {"data.augment.shift": 2}})
    sweep = Sweep(tmp_path, variants, (0, 1))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep)
    assert trained == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert "3 of 4 runs" in (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = run_sweep(sweep)
    # Finished runs and the one that diverged are left as they are.
    assert trained[4:] == [(2, 1)]
    assert "run 4/4: shifted, seed 1" in capsys.readouterr().out

    folders = [tmp_path / "runs" / "plain" / f"seed-{seed}" for seed in (0, 1)]
    values = [last_metrics(folder)[LOSS] for folder in folders]
    assert values[0] != values[1]
    plain, shifted = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert plain["metrics"] == {
        LOSS: {
            "mean": statistics.fmean(values),
            "deviation": statistics.stdev(values),
            "values": values,
        }
    }
    assert plain["overrides"] == {} and plain["wall_seconds"] > 0 and plain["errors"] == {}
    assert shifted["overrides"] == {"data.augment.shift": 2}
    assert shifted["errors"] == {"0": "step 1: loss is nan"}
    good = shifted["metrics"][LOSS]
    assert len(good["values"]) == 1 and good["deviation"] is None
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[2].startswith(
        f"| plain |  | {statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f} |"
    )
    assert f"| shifted | `data.augment.shift=2` | {good['mean']:.4f} |" in lines[3]
    assert "4 of 4 runs" in lines[5] and lines[-1].endswith("shifted, seed 0: step 1: loss is nan")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert plot(rows, [folders, []], [LOSS]) == plot(rows, [folders, []], [LOSS])
    # Two steps, each logged: one interval.
    assert [row["step"] for row in read_metrics(folders[0]) if LOSS in row] == [1, 2]
    assert steps_per_second(folders[0]) > 0

    other = dataclasses.replace(base, steps=3)
    with pytest.raises(InputError, match=r"seed-0: holds a finished run with config.steps = 2, no"):
        run_sweep(Sweep(tmp_path, make_variants(other, {"plain": {}}), (0,)))
    with pytest.raises(InputError, match="--metric is 'train/los'; expected one of .*train/loss"):
        run_sweep(dataclasses.replace(sweep, metrics=("train/los",)))
    assert len(trained) == 5


def test_a_grid_is_a_product_of_typed_values():
    base = TrainConfig()
    grid = parse_grid(["settings.form=gathered,ring", "optim.clip_norm=1,0.5"], base)
    assert list(grid) == [
        "settings.form=gathered,optim.clip_norm=1", "settings.form=gathered,optim.clip_norm=0.5",
        "settings.form=ring,optim.clip_norm=1", "settings.form=ring,optim.clip_norm=0.5",
    ]  # fmt: skip
    variants = make_variants(base, grid)
    assert variants[1].config.settings.form == "gathered"
    assert [v.config.optim.clip_norm for v in variants[2:]] == [1.0, 0.5]
    grid = parse_grid(["optim.freeze=(),('visual/.*',)"], base)
    freeze = [v.config.optim.freeze for v in make_variants(base, grid)]
    assert freeze == [(), ("visual/.*",)]
    assert [v.folder for v in make_variants(base, grid)] == [
        "optim.freeze=__", "optim.freeze=__visual_.__,_"
    ]  # fmt: skip
    assert list(parse_grid(["model.logit_bias=True,false"], base).values()) == [
        {"model.logit_bias": True}, {"model.logit_bias": False}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "settings.from=ring"], "unknown key settings.from in the sweep; did you mean"),
        (["--grid", "data.batch_size=x"], "data.batch_size to 'x' (str); expected int, such as"),
        (["--grid", "model.logit_bias=1"], "model.logit_bias to '1' (str); expected bool"),
        (["--grid", "settings.form=rings"], "variant settings.form=rings: config.settings.form is"),
        (["--grid", "model.vision.width=7"], "vision.width is 7, not a multiple of vision.heads"),
        (["--grid", "steps"], "--grid is 'steps'; expected KEY=VALUE,VALUE"),
        (["--grid", "steps="], "--grid steps has no values"),
        (["--grid", "steps=1,1"], "--grid holds steps=1 twice"),
        (["--grid", "steps=1", "--grid", "steps=2"], "--grid names steps twice"),
        (["--grid", "seed=1,2"], "--seeds says how many"),
        (["--grid", "steps=1", "--seeds=0"], "--seeds is 0; expected at least 1"),
        (["--grid", "steps=1", "--seeds=two"], "argument --seeds: invalid int value: 'two'"),
        (["--grid", "steps=1", "--metric=loss"], "--metric is 'loss'; expected one of train/NAME"),
        (["--grid", "data.batch_size=12"], "expected a multiple of 8"),
        (["--grid", "steps=1", "--config.stepz=1"], "did you mean config.steps?"),
        (["--gird", "steps=1"], "Unknown command line flag 'gird'"),
        (["steps=1"], "unknown argument 'steps=1'"),
        ([], "nothing to compare: give --grid KEY=VALUE,VALUE, or define get_sweep()"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(
    experiment_file, tmp_path, capsys, arguments, message
):
    workdir = tmp_path / "sweep"
    status = main([f"--config={experiment_file()}", f"--workdir={workdir}", *arguments])
    told = capsys.readouterr().err
    assert status == WRONG_INPUT and told.count("\n") == 1 and message in told
    assert not workdir.exists()


def test_mistakes_in_an_experiment_file(experiment_file, tmp_path):
    for sweep, message in (
        ("{}", "the sweep has no variants"),
        ("{'a': {'step': 1}}", "unknown key step in the sweep; did you mean steps?"),
        ("{'a b': {}, 'a_b': {}}", "both need folder a_b"),
        ("{'..': {}}", "cannot name a folder"),
    ):
        file = experiment_file(f"\ndef get_sweep():\n    return {sweep}\n")
        with pytest.raises(InputError, match=message):
            parse([f"--config={file}", f"--workdir={tmp_path}"])
    for file, message in ((tmp_path / "none.py", "is no experiment"), (tmp_path, "is no exper")):
        with pytest.raises(InputError, match=message):
            parse([f"--config={file}", f"--workdir={tmp_path}"])
    with pytest.raises(InputError, match="--workdir=DIR are both needed"):
        parse([f"--config={experiment_file()}"])


def test_prerequisites_are_trained_once_and_named_to_all(experiment_file, tmp_path, monkeypatch):
    file = experiment_file("""
def get_prerequisites():
    return {"init.folder": TrainConfig(steps=7)}

def get_sweep():
    return {"short": {"steps": 1}, "long": {"steps": 2}}
""")
    arguments = [f"--config={file}", f"--workdir={tmp_path}", "--seeds=2", "--config.seed=5"]
    given = parse([*arguments, "--config.init.folder=elsewhere"])
    assert not given.prerequisites
    assert {v.config.init.folder for v in given.variants} == {"elsewhere"}
    sweep, trained = parse(arguments), []
    folder = tmp_path / "prerequisites" / "init.folder"

    def finish(config, folder):
        trained.append((config.steps, config.seed, config.init.folder, folder.name))
        result = Result(config.to_dict(), {"train/loss": 1.0}, None, None)
        result.save(folder)
        return result

    monkeypatch.setattr(sweep_module, "finish", finish)
    run_sweep(sweep)
    run_sweep(sweep)
    model = str(folder / "model")
    assert trained == [
        (7, 0, "", "init.folder"),
        (1, 5, model, "seed-5"), (1, 6, model, "seed-6"),
        (2, 5, model, "seed-5"), (2, 6, model, "seed-6"),
    ]  # fmt: skip


def test_a_prerequisite_that_diverges_ends_the_sweep(experiment_file, tmp_path, monkeypatch):
    file = experiment_file("""
def get_prerequisites():
    return {"init.folder": TrainConfig(steps=7)}
""")

    def finish(config, folder):
        raise DivergedError("step 3: loss is nan")

    monkeypatch.setattr(sweep_module, "finish", finish)
    arguments = [f"--config={file}", f"--workdir={tmp_path}", "--grid=steps=1"]
    assert main(arguments) == DIVERGED


def test_what_the_evaluators_measured_stands_in_the_table():
    """Mean and sample deviation; a variant that always diverged has an empty row."""
    variants = make_variants(TrainConfig(), parse_grid(["steps=1,2"], TrainConfig()))
    measured = {
        seed: Result({}, {"train/loss": 9.0, "zero-shot:test/accuracy": float(seed)}, 2.0, None)
        for seed in (1, 2, 3)
    }
    diverged = {1: Result({}, {"train/loss": 9.0}, None, None, "step 2: loss is inf")}
    rows = [Row(variants[0], measured), Row(variants[1], diverged)]
    metrics = default_metrics(rows)
    assert metrics == ["zero-shot:test/accuracy"]
    lines = table(rows, metrics, seeds=3).splitlines()
    assert lines[2:4] == ["| steps=1 | 2.0000 ± 1.0000 | 2.0 |  |", "| steps=2 |  |  |  |"]
    assert "4 of 6 runs" in lines[5]
