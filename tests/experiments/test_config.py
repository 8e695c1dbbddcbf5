import dataclasses
import json
import re
from pathlib import Path

import pytest

from clip_jax import InputError
from experiments.cli.command_line import parse_command_line
from experiments.config.renamed import RENAMED, current_names
from experiments.config.run import TrainConfig, check, flatten
from experiments.train import main

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
DIGITS = f"--config={CONFIGS / 'digits.py'}"


def test_overrides_reach_nested_values(tmp_path):
    config, workdir = parse_command_line(
        [
            DIGITS,
            f"--workdir={tmp_path}",
            "--config.optim.learning_rate=0.01",
            "--config.model.vision.layers=5",
            "--config.data.augment.scale=(1.0, 1.5)",
            "--config.compute.dtype=bfloat16",
        ]
    )
    assert workdir == tmp_path
    assert config.optim.learning_rate == 0.01
    assert config.model.vision.layers == 5
    assert config.data.augment.scale == (1.0, 1.5)
    assert config.compute.dtype == "bfloat16"
    assert config.data.name == "digits_ru"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optim.learnin_rate=1"], "unknown key config.optim.learnin_rate; did you mean "
         "config.optim.learning_rate?"),
        (["--config.stepz=1"], "did you mean config.steps?"),
        (["--config.steps=many"], "error: config.steps is 'many'; expected an integer\n"),
        (["--config.optim.learning_rate=x"], "learning_rate is 'x'; expected a number\n"),
        (["--config.data.in_memory=so"], "data.in_memory is 'so'; expected true or false\n"),
        (["--config.evaluators=(1,"], "evaluators is '(1,'; expected a tuple, such as \"('a',"),
        (["--config.steps"], "error: --config.steps has no value; expected --config.steps=VALUE"),
        (["--steps=1"], "unknown option --steps; did you mean --config.steps?"),
        (["--confg.steps=1"], "unknown option --confg.steps; did you mean --config.steps?"),
        (["--config.steps=0"], "config.steps is 0"),
        (["--config.settings.image_weight=3"],
         "config.settings.image_weight is a key of objective rudolph; the experiment file"),
        (["--config.settings.duplicates=maybe"], "config.settings.duplicates is 'maybe'"),
        (["--config.model.vision.heads=5"], "vision.width is 128, not a multiple"),
        (["--config.objective=gan"], "config.objective is 'gan'; expected one of clip"),
        (["--config.evaluators=('zero-shot:nowhere',)"], "has no split 'nowhere'"),
        (["--config.evaluators=('magic:test',)"], "expected TASK:SPLIT"),
        (["--config.data.name=emoji_ru", "--config.data.split=new_drawing",
          "--config.evaluators=('zero-shot:new_drawing',)"], "which needs a feature 'label'"),
        (["--config.data.name=emoji_ru", "--config.data.split=new_drawing",
          "--config.evaluators=('zero-shot:new_drawing',)"],
         "--config.evaluators=\"('retrieval:new_drawing',)\" fits"),
        (["--config.mesh.data=3"], "needs 3 devices; found 8"),
        (["--config.data.batch_size=12"], "expected a multiple of 8: 8 shards"),
        (["--config.data.group_by=styel"], "config.data.group_by is 'styel'; expected one of"),
        (["--config.data.name=nothing"], "config.data.name is 'nothing'"),
        (["--verbose"], "verbose"),
        (["extra"], "unknown argument 'extra'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_anything_starts(
    tmp_path, data_directory, capsys, arguments, message
):
    run = tmp_path / "run"
    directory = f"--config.data.directory={data_directory}"
    assert main([DIGITS, f"--workdir={run}", directory, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not run.exists()


def test_config_and_workdir_are_needed(capsys):
    assert main([]) == 2
    assert "--config=FILE and --workdir=DIR" in capsys.readouterr().err
    for value, message in (
        ("absent.py", "absent.py cannot be read: there is no such file; experiments/configs holds"),
        ("experiments/configs/digit.py", "did you mean experiments/configs/digits.py?"),
        ("digits", "digits cannot be read: there is no such file; did you mean experiments/conf"),
        ("tests", "tests cannot be read: is a folder;"),
    ):
        for arguments in ([f"--config={value}"], ["--config", value]):
            assert main([*arguments, "--workdir=x"]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"error: --config: {value} cannot") and message in error
            assert error.count("\n") == 1


def test_configs_survive_json(train_config):
    assert TrainConfig.from_dict(json.loads(json.dumps(train_config.to_dict()))) == train_config


def test_ill_typed_values_are_refused(train_config):
    data = train_config.to_dict()
    data["data"]["in_memory"] = "yes"
    with pytest.raises(InputError, match=r"config.data.in_memory is 'yes' \(str\); expected bool"):
        TrainConfig.from_dict(data)


def test_augmentation_is_checked(train_config):
    for change in ({"scale": (1.0,)}, {"scale": (2.0, 1.0)}, {"grey": 1.5}, {"shift": -1}):
        augment = dataclasses.replace(train_config.data.augment, **change)
        data = dataclasses.replace(train_config.data, augment=augment)
        with pytest.raises(InputError, match=f"config.data.augment.{next(iter(change))} is"):
            check(dataclasses.replace(train_config, data=data))


def test_help_lists_every_key(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for key in ("optim.learning_rate=0.0005", "model.vision.layers=3", "data.augment.shift=0"):
        assert f"--config.{key}\n" in printed


def test_help_lists_the_keys_of_each_objective(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    parts = printed.split("objective '")
    assert "--config.settings.duplicates='negatives'" in parts[1]
    assert "--config.settings.entropy_weight=0.0" in parts[2]
    assert "--config.settings.kl_weight=" in parts[2] and "model.codebook_size=" in parts[2]
    assert "--config.settings.image_weight=7.0" in parts[3] and "model.width=" in parts[3]


@pytest.mark.parametrize("name", ["vqgan_train_config", "rudolph_train_config"])
def test_every_objective_survives_json(name, request):
    config = request.getfixturevalue(name)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("weight", "change", "message"),
    [
        (-0.1, {}, "config.settings.entropy_weight is -0.1; expected 0 or above"),
        (0.1, {"parallel": "pmap"}, "config.parallel is 'pmap'; expected jit with"),
        (0.1, {"grad_accum_steps": 2}, "config.grad_accum_steps is 2; expected 1 with"),
    ],
)
def test_the_entropy_loss_needs_the_whole_batch(vqgan_train_config, weight, change, message):
    check(dataclasses.replace(vqgan_train_config, **change))  # fine without it
    settings = dataclasses.replace(vqgan_train_config.settings, entropy_weight=weight)
    with pytest.raises(InputError, match=re.escape(message)):
        check(dataclasses.replace(vqgan_train_config, settings=settings, **change))


def test_initializations_are_known(vqgan_train_config):
    settings = dataclasses.replace(vqgan_train_config.settings, initialization="xavier")
    message = "config.settings.initialization is 'xavier'; expected one of pytorch, zero_residual"
    with pytest.raises(InputError, match=re.escape(message)):
        check(dataclasses.replace(vqgan_train_config, settings=settings))


def test_keys_of_another_objective_are_unknown(rudolph_train_config):
    for key, message in (
        ("duplicates", "unknown key config.settings.duplicates"),
        ("image_wieght", "did you mean settings.image_weight?"),
    ):
        data = rudolph_train_config.to_dict()
        data["settings"][key] = 1.0
        with pytest.raises(InputError, match=message):
            TrainConfig.from_dict(data)
    data = rudolph_train_config.to_dict()
    data["model"]["codebook_size"] = 8
    with pytest.raises(InputError, match="unknown codebook_size"):
        TrainConfig.from_dict(data)


def test_a_model_of_another_objective_is_refused(rudolph_train_config, vqgan_train_config):
    mixed = dataclasses.replace(rudolph_train_config, model=vqgan_train_config.model)
    with pytest.raises(InputError, match="is a VqganConfig; objective 'rudolph' takes"):
        check(mixed)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_keys_of_earlier_versions_are_named(old, new):
    """A saved config is understood; a command line or an experiment file gets today's name."""
    assert current_names({old: 1, "steps": 2}) == {new: 1, "steps": 2}
    assert new in flatten(TrainConfig().to_dict()) and old not in flatten(TrainConfig().to_dict())
    argv = ["--config=experiments/configs/digits.py", "--workdir=x", f"--config.{old}=1"]
    with pytest.raises(InputError, match=f"{re.escape(old)} is called config.{re.escape(new)} now"):
        parse_command_line(argv)
    section, _, name = old.rpartition(".")
    with pytest.raises(InputError, match=f"is called config.{re.escape(new)} now"):
        TrainConfig.from_dict({section: {name: 1}} if section else {name: 1})
