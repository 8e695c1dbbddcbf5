"""Where paths may be: local or in a bucket, and nothing local is made of another address."""

import importlib.util
import re
from pathlib import Path

import pytest
from cli_commands import main_of
from etils import epath

import clip_jax
import rudolph_jax
from clip_jax import InputError, paths
from clip_jax.paths import BucketPath, as_path, local_path
from clip_jax.search import list_images
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.train import train

ROOT = Path(__file__).parent.parent
CONFIG = f"--config={ROOT}/experiments/configs/digits.py"
SCHEMES = ["s3", "hdfs", "http", "file", "hf", "az"]


@pytest.fixture
def gcs_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(paths, "_configure_clients", lambda: None)


def test_local_paths_are_pathlib_s(tmp_path):
    for given in ("a/b", "gs:/b", str(tmp_path), tmp_path, Path("a")):
        assert type(as_path(given)) is type(Path()) and as_path(given) == Path(given)


def test_a_bucket_s_path(gcs_installed):
    path = as_path("gs://b/r//x.txt")
    assert type(path) is BucketPath and str(path) == "gs://b/r/x.txt"
    assert type(path.parent / "y") is BucketPath and str(path.parent / "y") == "gs://b/r/y"
    assert (path.name, str(path.absolute()), str(path.resolve())) == ("x.txt", *2 * [str(path)])
    assert as_path(path) is path
    assert type(as_path(epath.Path("gs://b/r"))) is BucketPath
    assert str(path.relative_to(as_path("gs://b"))) == "r/x.txt"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_schemes_are_refused_by_name(scheme):
    with pytest.raises(InputError, match=f"^{scheme}://b/r: {scheme}:// cannot be read or written"):
        as_path(f"{scheme}://b/r")
    with pytest.raises(InputError, match=f"{scheme}:// short; give the address as a text"):
        as_path(Path(f"{scheme}://b/r"))


def test_gs_needs_its_packages_and_a_bucket(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"gs://b/r: buckets need .* 'rudolph-jax\[gcs\]'"):
        as_path("gs://b/r")
    with pytest.raises(InputError, match="names no bucket"):
        as_path("gs:///r")


def test_what_must_be_local(gcs_installed):
    with pytest.raises(InputError, match="gs://b/r: a store cannot be in a bucket"):
        local_path("gs://b/r", "a store")


COMMANDS = [
    ("clip_jax", "search кот {A} --model=x"),
    ("clip_jax", "search кот . --model={A}"),
    ("converters", "ruclip . {A}"),
    ("converters", "ruclip {A} out"),
    ("converters", "verify {A}"),
    ("converters", "export {A} out"),
    ("converters", "jax-export x {A}"),
    ("rudolph_jax", "write мир --model={A}"),
    ("rudolph_jax", "draw мир --model=x --vqgan={A}"),
    ("rudolph_jax", "draw мир --model=x --vqgan=x --out={A}"),
    ("rudolph_jax", "app --model={A} --vqgan=x"),
    ("rudolph_jax", "upscale x.png --model={A}"),
    ("rudolph_jax", "upscale {A} --model=x"),
    ("rudolph_jax", "upscale x.png --model=x --out={A}"),
    ("rudolph_jax", "draw мир --model=x --vqgan=x --upscaler={A}"),
    ("experiments.train", CONFIG + " --workdir={A}"),
    ("experiments.train", CONFIG + " --workdir=run --config.data.name={A}"),
    ("experiments.train", CONFIG + " --workdir=run --config.data.directory={A}"),
    ("experiments.train", CONFIG + " --workdir=run --config.data.vocabulary={A}"),
    ("experiments.train", CONFIG + " --workdir=run --config.init.folder={A}"),
    ("experiments.train", CONFIG + " --workdir=run --config.data.mix=('{A}=1',)"),
    ("experiments.prepare", "{A} out"),
    ("experiments.prepare", "set out --data-dir={A}"),
    ("experiments.prepare", ". {A}"),
    ("experiments.model", "{A} out"),
    ("experiments.model", "run {A}"),
    ("experiments.evaluate", "zero-shot --model={A} --sets=digits_ru"),
    ("experiments.evaluate", "zero-shot --model=x --sets=digits_ru --out={A}"),
    ("experiments.evaluate", "zero-shot --model=x --sets=digits_ru --cache={A}"),
    ("experiments.sweep", CONFIG + " --workdir={A}"),
    ("experiments.translate", "--model=x --texts=x --cache={A}"),
]


@pytest.mark.parametrize("command, line", COMMANDS)
def test_commands_refuse_an_address_at_once(command, line, tmp_path, monkeypatch, capsys):
    """One line that names it, status 2, and not a file is made."""
    monkeypatch.chdir(tmp_path)
    words = [word.replace("{A}", "hdfs://b/r") for word in line.split()]
    assert main_of(command)(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "hdfs:// cannot be read or written" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        clip_jax.load,
        clip_jax.load_tokenizer,
        list_images,
        rudolph_jax.load,
        rudolph_jax.load_vqgan,
        rudolph_jax.load_upscaler,
        lambda place: prepare(SourceConfig("x"), place),
    ],
)
def test_functions_refuse_an_address(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("s3://b/r", Path("s3://b/r")):
        with pytest.raises(InputError, match="s3://"):
            call(address)
    assert not list(tmp_path.iterdir())


def test_train_refuses_a_cache_elsewhere(train_config_of_digits, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "s3://b/programs")
    with pytest.raises(InputError, match="JAX_COMPILATION_CACHE_DIR: s3://b/programs"):
        train(train_config_of_digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def train_config_of_digits():
    from experiments.config.run import TrainConfig
    from experiments.configs.digits import get_config

    return TrainConfig.from_dict(get_config().to_dict())


def test_no_path_of_a_user_is_made_by_pathlib():
    """An address would become a local folder; as_path and local_path refuse it."""
    pattern = re.compile(r"type=Path\b|\bPath\((?:self\.)?(?:args|config|plan\.config)\.")
    for package in ("clip_jax", "rudolph_jax", "experiments", "converters"):
        for file in (ROOT / package).rglob("*.py"):
            found = pattern.findall(file.read_text(encoding="utf-8"))
            # Sources are checked once, where a preparation begins.
            assert not found or "sources" in file.parts, (file, found)
