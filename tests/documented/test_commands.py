"""Every command of the pages does what it says, as it is printed, on a folder of the stated form.

`table.py` says how each is run. One that it lacks is an error, and so is one that no page has.
"""

import contextlib
import dataclasses
import importlib
import io
import os
import re
import shlex
import tomllib
from pathlib import Path

import data_pieces  # noqa: F401 - registers what commands read
import jax
import model_pieces  # noqa: F401
import pytest
from huggingface_hub import constants
from launch_table import LAUNCH
from loopback_hub import Hub
from pages import PAGES, ROOT, SETTING, Command, commands, commands_of
from table import HOW as OTHERS
from table import Help, Parse, Run
from workspace import Workspace

from clip_jax.cli import Parser
from converters.registry import PUBLISHED_MODELS, PublishedModel
from experiments import train
from experiments.evaluation.sets import RECORDS

HOW = {**OTHERS, **LAUNCH}
PRINTED: dict[str, list[Command]] = {}
for _page in PAGES:
    for _command in commands(_page):
        PRINTED.setdefault(_command.text, []).append(_command)

# Names of commands, which sentences explain.
MENTION = re.compile(r"python -m [\w.]+( [a-z][a-z-]*)?$")
# Settings that sentences name, and where each is read.
SETTINGS = {
    "GLIBC_TUNABLES": "Makefile",
    "MUTANTS": "Makefile",
    "JAX_ENABLE_COMPILATION_CACHE": "clip_jax/compilation_cache.py",
    "JAX_COMPILATION_CACHE_DIR": "clip_jax/compilation_cache.py",
    "PIP_CONSTRAINT": "docs/launch/install",
    "RUDOLPH_JAX_GPU_LOOP": "rudolph_jax/gpu_loop.py",
    "RUDOLPH_JAX_VERIFY": "clip_jax/digests.py",
    "TESTS": "Makefile",
    "WANDB_MODE": "experiments/training/trackers.py",
    "XLA_FLAGS": "Makefile",
}


def way(text: str):
    """Returns how a command is run; None where nobody has said so."""
    if text in HOW:
        return HOW[text]
    return Help() if MENTION.fullmatch(text) else None


def rule(text: str) -> str:
    """The kind of commands that need no line in the table: it follows from their first word."""
    word = text.split()[0]
    return word if word in ("pip", "make", "pytest") else "set" if "=" in word else ""


def test_every_command_is_in_the_table_and_the_table_has_no_others():
    unknown = [
        f"{where.page}:{where.line}: {text}"
        for text, (where, *_) in PRINTED.items()
        if way(text) is None and not rule(text)
    ]
    assert not unknown, "how are these run? say so in tests/documented/table.py"
    assert not set(HOW) - set(PRINTED), "no page has these any more"


def test_no_command_is_overlooked():
    """Where a page has `python -m` and a module, a command is found."""
    for page in PAGES:
        text = re.sub(r"```python.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        printed = len(re.findall(r"python -m\s+[a-z]", text))
        found = sum(command.text.count("python -m ") for command in commands(page))
        # The output of a command may name another.
        assert found >= printed - (page.name == "evaluation_sets.md"), page.name


def test_what_is_a_command():
    page = """A `pip install 'a[b]'` and `make`, `x.py`, `tensorboard/`, `python -m
clip_jax search`, `A_B=1`.

    python -m a \\
        "# no comment"   # a comment
    b: output
    for i in 0; do
      python -m c $i &
    done

```bash
E="python -m d"
$E x
```
```python
make = "python -m no"
```
"""
    assert [(c.line, c.text) for c in commands_of(page)] == [
        (1, "pip install 'a[b]'"), (1, "python -m clip_jax search"), (2, "A_B=1"),
        (4, 'python -m a "# no comment"'), (7, "for i in 0; do python -m c $i & done"),
        (12, 'E="python -m d"'), (13, "$E x"),
    ]  # fmt: skip


def params(kind: type):
    """The commands of a kind, called by where they first stand."""
    return [
        pytest.param(
            text, id=f"{where.page}:{where.line}",
            marks=[pytest.mark.slow] if getattr(way(text), "slow", False) else [],
        )
        for text, (where, *_) in PRINTED.items()
        if isinstance(way(text), kind)
    ]  # fmt: skip


RULES = [text for text in PRINTED if rule(text) and text not in HOW]


@pytest.mark.parametrize("text", RULES)
def test_extras_targets_tests_and_settings_exist(text):
    words = shlex.split(text)
    if words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        (named,) = re.findall(r"\[([\w,]+)\]", text) or [""]
        assert words[1] == "install" and words[2].startswith((".", "./rudolph-jax", "rudolph-jax"))
        assert set(filter(None, named.split(","))) <= set(project["optional-dependencies"])
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        for word in words[1:]:
            found = rf"^{word.partition('=')[0]} *\??=" if "=" in word else rf"^{word}:"
            assert re.search(found, makefile, re.MULTILINE), word
    elif words[0] == "pytest":
        for word in words[1:]:
            assert not word.endswith(".py") or (ROOT / word).is_file(), word
    else:
        assert SETTING.fullmatch(text) or text.startswith(("TESTS=", "MUTANTS=")), text
        name = text.partition("=")[0]
        assert name.removeprefix("JAX_").lower() in (ROOT / SETTINGS[name]).read_text().lower()


def module_main(module: str):
    package = (ROOT / module.replace(".", "/")).is_dir()
    return importlib.import_module(f"{module}.__main__" if package else module).main


def arguments_of(text: str) -> list[str]:
    """The words behind the last `python -m`: what a launcher or a loop starts."""
    started = re.sub(r".*python -m ", "", text).partition(" & ")[0]
    for quote in "\"'":  # of what the launcher takes as one word
        started = started.removesuffix(quote) if started.count(quote) % 2 else started
    return shlex.split(started)


class Parsed(BaseException):
    """The arguments are fine; nothing is to be done with them."""


@pytest.fixture
def parse_only(monkeypatch):
    """Ends each command where its arguments are read."""
    for module in set(re.findall(r"python -m ([\w.]+)", " ".join(PRINTED))):
        module_main(module)  # a later import would take hold of what is replaced here
    real = Parser.parse_args

    def parse_args(self, *arguments, **settings):
        real(self, *arguments, **settings)
        raise Parsed

    def stop(config, *_):
        train.check(config)
        raise Parsed

    def stop_here(*_):
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", parse_args)
    monkeypatch.setattr("experiments.train.train", stop)
    for module in ("train", "preflight"):
        monkeypatch.setattr(f"experiments.{module}.initialize", lambda how: None)
    monkeypatch.setattr("experiments.preflight.preflight", stop)
    monkeypatch.setattr("experiments.sweep.run_sweep", stop_here)
    monkeypatch.setattr("experiments.plan.slice_devices", stop_here)


@pytest.mark.parametrize("text", params(Parse))
def test_what_is_too_large_to_run_is_parsed(text, parse_only, monkeypatch):
    monkeypatch.chdir(ROOT)
    replaced = text
    for placeholder, value in way(text).placeholders:
        replaced = re.sub(rf"(?<!\w){re.escape(placeholder)}(?!\w)", lambda _, v=value: v, replaced)
    module, *arguments = arguments_of(replaced)
    with pytest.raises(Parsed):
        assert not module_main(module)(arguments), text


@pytest.mark.parametrize("text", [text for text, how in HOW.items() if getattr(how, "slow", False)])
def test_what_takes_long_is_parsed_at_least(text, space, parse_only, monkeypatch, tmp_path):
    # The recipe of a fine-tuning reads its model's config.
    space.lay_out(" ".join(re.findall(r"MODEL=\S+", HOW[text].needs)), tmp_path)
    monkeypatch.chdir(tmp_path)
    module, *arguments = arguments_of(text)
    with pytest.raises(Parsed):
        assert not module_main(module)(arguments), text


@pytest.mark.parametrize("text", params(Help))
def test_what_is_explained_has_help(text, capsys):
    module, *arguments = arguments_of(text)
    with contextlib.suppress(SystemExit):
        assert module_main(module)([*arguments, "--help"]) == 0
    assert len(capsys.readouterr().out) > 100


@pytest.fixture(scope="session")
def space(tmp_path_factory, byte_vocabulary, small_config):
    return Workspace(tmp_path_factory.mktemp("pieces"), byte_vocabulary, small_config)


@pytest.fixture
def hub(monkeypatch, tmp_path, space):
    """A hub on the loopback interface with small models under the published names."""
    server = Hub()
    url = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": url, "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_loopback")
    ruclip = files_of(space.get("ruclip_files"))
    server.put("ai-forever/ruclip-vit-base-patch32-384", ruclip)
    for name, repo, piece in (
        ("rudolph-350M", "a/rudolph", "models/rudolph"),
        ("vqgan-gumbelf8", "a/vqgan", "models/vqgan"),
    ):
        server.put(repo, files_of(space.get(piece)))
        monkeypatch.setitem(PUBLISHED_MODELS, name, PublishedModel((repo,)))
    yield server
    server.stop()


def files_of(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def execute(text: str, shorter: str = "") -> tuple[int, str]:
    """Runs a line as a shell would, in this process; its status and what it printed."""

    def inner(match: re.Match) -> str:
        status, printed = execute(match[1])
        assert status == 0, match[1]
        return printed.strip()

    text = re.sub(r"\$\(([^()]*)\)", inner, text)
    words = [os.path.expanduser(word) for word in shlex.split(os.path.expandvars(text))]
    assert words[:2] == ["python", "-m"], words
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            status = module_main(words[2])([*words[3:], *shlex.split(shorter)])
        except SystemExit as end:  # of --help
            status = end.code
    return status, out.getvalue()


@pytest.mark.parametrize("text", params(Run))
def test_commands_run_as_printed(text, space, tmp_path, monkeypatch, capsys, request):
    how = HOW[text]
    space.lay_out(how.needs, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one = jax.local_devices()[:1]  # of the eight, for each of which bulk work is compiled
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    if "rudolph_jax app" in text:  # all but the page itself, which needs gradio and serves on
        monkeypatch.setattr("rudolph_jax.app.cli.check_gradio", lambda: None)
        monkeypatch.setattr("rudolph_jax.app.cli.serve", lambda *_: None)
    # A set with two images a class in the place of 10,000.
    small = dataclasses.replace(RECORDS["cifar10"], examples={})
    monkeypatch.setitem(RECORDS, "cifar10", small)
    if how.hub:
        server = request.getfixturevalue("hub")
        if "me/my-clip" in text and "pretrained" in text:
            server.put("me/my-clip", files_of(space.get("models/ruclip")))
    for name, value in how.variables:
        monkeypatch.setenv(name, value)
    pages = {where.page for where in PRINTED[text]}
    for before, (where, *_) in PRINTED.items():  # E="..." above the line
        if (match := re.fullmatch(r'([A-Z])="(.*)"', before)) and where.page in pages:
            text = text.replace(f"${match[1]} ", f"{match[2]} ")
    if match := re.fullmatch(r"\w+=\$\((.*)\)", text):
        text = match[1]
    options = [text]
    if match := re.search(r" (\w+(?:\|\w+)+) ", text):
        options = [text.replace(match[1], choice) for choice in match[1].split("|")]
    for option in options:
        status, printed = execute(option, how.shorter)
        assert status == how.status, capsys.readouterr().err
        assert printed or how.files or "app" in option or "structure_images" in option
    for file in how.files.split():
        assert (tmp_path / file).is_file(), sorted(tmp_path.rglob("*"))
