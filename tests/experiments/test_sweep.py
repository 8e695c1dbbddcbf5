"""Sweeps of a few steps: what runs, what is not run again, what the table says, what is refused."""

import dataclasses
import json
import os
import statistics

import jax
import pytest

from clip_jax import InputError
from clip_jax.cli import WRONG_INPUT
from experiments import sweep as sweep_module
from experiments.cli.exit_status import DIVERGED, DivergedError
from experiments.config.data import AugmentConfig
from experiments.config.run import InitConfig, TrainConfig
from experiments.sweep import Sweep, main, parse, run_sweep
from experiments.sweeping.plot import loss_groups, plot
from experiments.sweeping.results import Result, Row, default_metrics, paired_difference
from experiments.sweeping.tables import to_csv, to_markdown
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
            "difference": None,
        }
    }
    assert plain["overrides"] == {} and plain["wall_seconds"] > 0 and plain["errors"] == {}
    assert shifted["overrides"] == {"data.augment.shift": 2}
    assert shifted["errors"] == {"0": "step 1: loss is nan"}
    good = shifted["metrics"][LOSS]
    assert len(good["values"]) == 1 and good["deviation"] is None
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"| variant | overrides | {LOSS} | each seed | minus plain |"
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    each = ", ".join(f"{value:.4f}" for value in values)
    assert lines[2] == f"| plain |  | {mean:.4f} ± {deviation:.4f} | {each} |  |"
    difference = good["mean"] - values[1]  # the seed that both have
    assert lines[3] == (
        f"| shifted | `data.augment.shift=2` | {good['mean']:.4f} | {good['mean']:.4f} | "
        f"{difference:+.4f} |"
    )
    assert "4 of 4 runs" in lines[5] and lines[-1].endswith("shifted, seed 0: step 1: loss is nan")
    runs = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert len(runs) == 5 and runs[1].startswith(f"plain,,0,{values[0]},")
    assert runs[3] == "shifted,data.augment.shift=2,0,,,,step 1: loss is nan"
    sessions = (tmp_path / "tensorboard").rglob("events*")
    assert {str(file.parent.relative_to(tmp_path / "tensorboard")) for file in sessions} == {
        "plain/seed-0", "plain/seed-1", "shifted/seed-1",
    }  # fmt: skip
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
        (["--grid", "steps=1", "--metric=train/los"],
         "--metric is 'train/los'; expected one of train/grad_norm, train/image_accuracy, "),
        (["--grid", "steps=1", "--metric=retrieval:test/top2",
          "--config.evaluators=('retrieval:test',)"],
         "--metric is 'retrieval:test/top2'; expected one of retrieval:test/top1, "),
        (["--grid", "data.batch_size=12"], "expected a multiple of 8"),
        (["--grid", "steps=1", "--config.stepz=1"], "did you mean config.steps?"),
        (["--gird", "steps=1"], "unknown option --gird"),
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

    def run_variant(config, folder):
        trained.append((config.steps, config.seed, config.init.folder, folder.name))
        result = Result(config.to_dict(), {"train/loss": 1.0}, None, None)
        result.save(folder)
        return result

    monkeypatch.setattr(sweep_module, "run_variant", run_variant)
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

    def train(config, folder):
        raise DivergedError("step 3: loss is nan")

    monkeypatch.setattr(sweep_module, "train", train)
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
    lines = to_markdown(rows, metrics, (1, 2, 3), rows[0]).splitlines()
    assert lines[2:4] == [
        "| steps=1 | 2.0000 ± 1.0000 | 1.0000, 2.0000, 3.0000 |  |",
        "| steps=2 |  |  |  |",
    ]
    assert "4 of 6 runs" in lines[5]
    assert len(to_csv(rows, metrics).splitlines()) == 5


def test_paired_differences_cancel_what_seeds_share():
    """1.0, 1.2 and 0.8 above seeds that lie 10 apart: Student's t with two degrees of freedom."""
    variants = make_variants(TrainConfig(), parse_grid(["steps=1,2"], TrainConfig()))

    def row(variant, values):
        return Row(variant, {
            seed: Result({}, {LOSS: value}, None, None) for seed, value in values.items()
        })  # fmt: skip

    base = row(variants[0], {0: 10.0, 1: 20.0, 2: 30.0, 3: 7.0})
    other = row(variants[1], {2: 30.8, 0: 11.0, 1: 21.2})
    found = paired_difference(other, base, LOSS)
    assert found["mean"] == pytest.approx(1.0)
    assert found["high"] - found["mean"] == pytest.approx(4.302653 * 0.2 / 3**0.5)
    assert found["mean"] - found["low"] == pytest.approx(found["high"] - found["mean"])
    one = paired_difference(row(variants[1], {1: 21.0}), base, LOSS)
    assert one == {"mean": 1.0, "low": None, "high": None}


def test_losses_share_axes_only_where_they_are_comparable():
    base = TrainConfig()
    grid = ["data.batch_size=32,64", "settings.form=gathered,ring"]
    configs = [v.config for v in make_variants(base, parse_grid(grid, base))]
    assert loss_groups(configs) == [[0, 1], [2, 3]]
    rates = make_variants(base, parse_grid(["optim.learning_rate=1e-3,1e-4"], base))
    assert loss_groups([v.config for v in rates]) == [[0, 1]]
    duplicates = make_variants(base, parse_grid(["settings.duplicates=negatives,masked"], base))
    assert loss_groups([v.config for v in duplicates]) == [[0], [1]]


def test_runs_at_once_give_what_runs_in_turn_give(base, tmp_path, monkeypatch):
    """Two processes of one device each; a failing one ends the sweep with its own words."""
    variants = make_variants(base, {"plain": {}, "shifted": {"data.augment.shift": 2}})
    real = sweep_module.train
    one_device = lambda config, folder: real(config, folder, jax.devices()[:1])  # noqa: E731
    monkeypatch.setattr(sweep_module, "train", one_device)
    # The last of two flags counts.
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    monkeypatch.setenv("XLA_FLAGS", flags)
    at_once = Sweep(tmp_path / "jobs", variants, (0,), jobs=2)
    in_turn = Sweep(tmp_path / "turn", variants, (0,))
    for one, other in zip(run_sweep(at_once), run_sweep(in_turn), strict=True):
        assert one.values(LOSS) == pytest.approx(other.values(LOSS), rel=1e-5)
    assert (at_once.folder(variants[0], 0) / "log.txt").exists()
    absent = dataclasses.replace(base, init=InitConfig(str(tmp_path / "absent")))
    failing = Sweep(tmp_path / "failing", make_variants(absent, {"x": {}}), (0,), jobs=2)
    with pytest.raises(InputError, match="variant x: .*ended with status 2 .*absent"):
        run_sweep(failing)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--jobs=0"], "--jobs is 0; expected at least 1"),
        (["--jobs=3", "--devices=0,1"], "--devices has 2 ids; expected one or more for each job"),
        (["--base=other"], "--base is 'other'; expected one of steps=1, steps=2"),
    ],
)
def test_wrong_options(experiment_file, tmp_path, capsys, options, expected):
    arguments = [f"--config={experiment_file()}", f"--workdir={tmp_path}", "--grid=steps=1,2"]
    assert main([*arguments, *options]) == WRONG_INPUT
    assert expected in capsys.readouterr().err
