"""From nothing to a model that others load, by the commands of docs/index.md, word for word."""

import csv
import dataclasses
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from clip_jax.layers import unstack_layers
from experiments.cli.command_line import parse_command_line
from experiments.configs import digits as digits_recipe
from experiments.data.digits_ru import NAMES, digits
from rudolph_jax import PretrainedRudolph, PretrainedVqgan, RudolphConfig
from rudolph_jax.model import abstract_params
from rudolph_jax.vqgan import init_params

ROOT = Path(__file__).parents[2]


def newcomers_commands():
    """The lines of the page's shell blocks, in order."""
    page = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    section = page.partition("## From nothing")[2].partition("\n## ")[0]
    return [
        line
        for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]


def test_the_page_has_the_whole_way():
    given = [re.sub(r" .*", "", line.partition("python -m ")[2]) for line in newcomers_commands()]
    assert [name for name in given if name and name != "venv"] == [
        "experiments.quickstart", "rudolph_jax", "clip_jax", "experiments.prepare",
        "experiments.train", "converters", "converters", "clip_jax",
    ]  # fmt: skip


def test_an_experiment_file_of_the_package_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=experiments/configs/digits.py", "--workdir=run"]
    assert parse_command_line(arguments)[0] == digits_recipe.train_config()
    with pytest.raises(clip_jax.InputError, match="cannot be read"):
        parse_command_line(["--config=experiments/configs/absent.py", "--workdir=run"])
    own = Path("experiments/configs/digits.py")
    own.parent.mkdir(parents=True)
    own.write_text(Path(digits_recipe.__file__).read_text().replace("steps=450", "steps=7"))
    assert parse_command_line(arguments)[0].steps == 7


def own_pictures(folder):
    """Twenty digits with captions in list.csv."""
    folder.mkdir()
    pictures, labels = digits()
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for i in range(20):
            Image.fromarray(pictures[i]).resize((32, 32)).save(folder / f"{i}.png")
            table.writerow([f"{i}.png", f"рукописная цифра {NAMES[labels[i]]}"])


def main_of(module):
    package = (ROOT / module).is_dir()
    return importlib.import_module(f"{module}.__main__" if package else module).main


@pytest.fixture
def small_models(goldens, tmp_path):
    """Untrained models where the quickstart leaves its own."""
    home = tmp_path / "runs/quickstart"
    converters.convert("ruclip", goldens / "ruclip", home / "ruclip/model")
    converters.convert("youtokentome", goldens / "tokenizer", tmp_path / "words")
    config = RudolphConfig(
        left_text_length=8, image_tokens_per_side=2, right_text_length=6, text_vocab_size=700,
        image_vocab_size=17, width=8, layers=1, heads=2, text_special_tokens=8,
    )  # fmt: skip
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32),
        unstack_layers(abstract_params(config)),
    )
    tokenizer = clip_jax.load_tokenizer(tmp_path / "words")
    PretrainedRudolph(config, params, tokenizer).save(home / "rudolph/model")
    vqgan = dataclasses.replace(
        rudolph_jax.VQGAN_PRESETS["tiny"], channels=4, latent_channels=4, codebook_size=17,
        channel_multipliers=(1, 1), norm_groups=2,
    )  # fmt: skip
    params = jax.jit(init_params, static_argnums=0)(vqgan, jax.random.key(0))
    PretrainedVqgan(vqgan, params).save(home / "vqgan/model")


def test_by_its_commands_on_the_smallest_models(hub, small_models, tmp_path, monkeypatch, capsys):
    """Run all but the two that train, which `test_in_an_environment_of_its_own` runs."""
    monkeypatch.chdir(tmp_path)
    own_pictures(Path("photos"))
    told, variables = {}, {}
    for line in newcomers_commands():
        if "python -m" not in line or "-m venv" in line or "experiments.quickstart" in line:
            continue
        if "experiments.train" in line:
            shutil.copytree("runs/quickstart/ruclip/model", "runs/mine/model")
            continue
        name, inner = re.fullmatch(r"(?:(\w+)=\$\()?(.*?)\)?", line).groups()
        words = shlex.split(inner)
        for variable, value in variables.items():
            words = [word.replace(f"${variable}", value) for word in words]
        assert words[:2] == ["python", "-m"]
        assert main_of(words[2])(words[3:]) == 0, line
        printed = capsys.readouterr().out.strip()
        told[words[2], words[3]] = printed
        if name:
            variables[name] = printed
    assert sorted(file.name for file in Path("drawings").iterdir()) == [
        "01.png", "02.png", "03.png", "04.png", "sheet.png"
    ]  # fmt: skip
    assert "data/mine: train 20; 0 rejected" in told["experiments.prepare", "photos"]
    assert told["converters", "push-to-hub"].startswith(f"{hub.url}/me/my-clip/commit/")
    found = told["clip_jax", "search"].splitlines()
    assert len(found) == 10 and all("photos/" in line for line in found)
    assert variables["model"].startswith(str(tmp_path / "cache"))


@pytest.fixture
def shell(hub, tmp_path):
    """Runs a line in a shell of its own, outside of the repository; the environment stays."""
    clone = tmp_path / "rudolph-jax"
    left = (".*", "runs", "site", "build", "*.egg-info", "tests", "__pycache__")
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*left))
    environment = {
        "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu", "LANG": "C.UTF-8",
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_loopback", "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        # Dependencies are lent by this environment: the network is no part of the test.
        "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    state = tmp_path / "state.sh"
    state.write_text("")

    def run(line):
        script = f". {state}\n{line}\nstatus=$?\ndeclare -p model > {state}.new 2>/dev/null\n"
        script += f"[ -d env ] && echo '. env/bin/activate' >> {state}.new\n"
        script += f"mv {state}.new {state}; exit $status"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-4000:])
        return done.stdout

    return run


@pytest.mark.slow
def test_in_an_environment_of_its_own(shell, tmp_path):
    """The wheel in a fresh environment, and every command as it stands, in processes of their own.

    Only the quickstart is cut short, by --steps: what it reaches stands in the README.
    """
    own_pictures(tmp_path / "photos")
    printed = {}
    for line in newcomers_commands():
        printed[line] = shell(line + " --steps=2" * line.endswith("experiments.quickstart"))
        if "-m venv" in line:
            site = Path(shell("env/bin/python -c 'import sysconfig; "
                              "print(sysconfig.get_path(\"purelib\"))'").strip())  # fmt: skip
            (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
            for old in site.glob("setuptools*"):  # Python 3.11's own cannot build this
                shutil.rmtree(old)
    where = shell("python -c 'import clip_jax; print(clip_jax.__file__)'")
    assert where.startswith(str(tmp_path / "env"))
    assert "experiments/configs/digits.py" in (
        shell("python -c 'import experiments.configs.digits as d; print(d.__file__)'")
    )
    assert (tmp_path / "drawings/04.png").exists()
    config = clip_jax.load(tmp_path / "runs/mine/model").config
    assert config == clip_jax.load(tmp_path / "runs/quickstart/ruclip/model").config
    assert len(printed[newcomers_commands()[-1]].splitlines()) == 10
