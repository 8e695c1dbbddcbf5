"""The recipes of docs/launch and the Dockerfile, as far as a machine without either can try them.

Scripts run with fakes of `gcloud`, `srun`, `scontrol` and Python; commands of this project are read
by their own parsers; YAML has only keys that its program knows.
"""

import contextlib
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pages import PAGES, ROOT
from test_commands import Parsed, arguments_of, module_main
from test_commands import parse_only as parse_only  # the fixture

LAUNCH = ROOT / "docs" / "launch"
SCRIPTS = ("install", "restart", "tpu_slice", "train.sbatch")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def run(*command, path=None, **variables):
    """Runs a script; path: of fakes, before all else."""
    environment = {**os.environ, **variables}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        [str(word) for word in command],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def fake(folder, name, body):
    """Writes a program that notes its arguments in FOLDER/calls, a line a call."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/calls\n{body}\n', "utf-8")
    program.chmod(0o755)


def calls(folder):
    return (folder / "calls").read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(name):
    assert run("bash", "-n", LAUNCH / name).returncode == 0
    assert os.access(LAUNCH / name, os.X_OK) or name.endswith(".sbatch")


# The image


def instructions(name):
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{name} ")]


def in_context(name):
    """Return whether .dockerignore leaves a path in the context, by the last line that fits."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").split():
        pattern = line.removeprefix("!")
        fits = [fnmatch.fnmatch(part, pattern) for part in parents(name)]
        inside = pattern.startswith("**/") and fnmatch.fnmatch(Path(name).name, pattern[3:])
        if any(fits) or inside:
            kept = line.startswith("!")
    return kept


def parents(name):
    parts = Path(name).parts
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The tree that the COPY instructions make."""
    tree = tmp_path_factory.mktemp("image")
    for copied in instructions("COPY"):
        *sources, target = copied.split()
        for source in sources:
            assert (ROOT / source).exists() and in_context(source), source
            to = tree / target / source if target.endswith("/") else tree / target
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                unused = shutil.ignore_patterns("__pycache__", "*.md")
                shutil.copytree(ROOT / source, to, ignore=unused)
            else:
                shutil.copy(ROOT / source, to)
    return tree


def test_the_image_has_what_the_distribution_ships(image):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= {path.name for path in image.iterdir()}
    assert (image / project["project"]["readme"]).is_file()
    assert not in_context("tests/conftest.py") and not in_context("clip_jax/__pycache__")
    assert in_context("docs/launch/install") and not in_context("docs/launch/gke.md")


def test_the_entry_point_runs(image):
    (entry,), (command,) = (map(json.loads, instructions(n)) for n in ("ENTRYPOINT", "CMD"))
    assert entry == ["python", "-m"] and command == ["experiments.train", "--help"]
    where = "import experiments, sys; sys.exit(not experiments.__file__.startswith(sys.argv[1]))"
    for words in ([*entry[1:], *command], ["-c", where, image]):
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=image, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(image)}, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "FILE.py" in done.stdout or words[0] == "-c"


def test_the_image_is_installed_by_the_script(image):
    (line,) = instructions("RUN")
    assert line == 'PIP_NO_CACHE_DIR=1 docs/launch/install "$ACCELERATOR"'
    assert "ACCELERATOR=cpu" in instructions("ARG")
    assert os.access(image / "docs/launch/install", os.X_OK)
    assert "PATH=/rudolph-jax/.venv/bin:$PATH" in instructions("ENV")
    assert instructions("WORKDIR") == ["/rudolph-jax"]


PIP = 'case "$*" in *--version*) [ -e {0}/made ];; esac'
VENV = """case "$*" in
  *"-m venv"*|*"uv venv"*)
    mkdir -p .venv/bin; touch {0}/made
    printf '#!/bin/bash\\necho "venv $*" >> {0}/calls\\n' > .venv/bin/python
    chmod +x .venv/bin/python ;;
  -c*) exit {1} ;;
esac"""


@pytest.mark.parametrize(
    "accelerator, old, extras",
    [("cpu", 0, "gcs,prepare"), ("cuda", 0, "gcs,prepare,cuda12"), ("tpu", 1, "gcs,prepare,tpu")],
)
def test_install(accelerator, old, extras, tmp_path):
    """A fake Python; old: whether it is one of 3.10, in whose place uv brings another."""
    script = tmp_path / "docs/launch/install"
    script.parent.mkdir(parents=True)
    shutil.copy(LAUNCH / "install", script)
    fakes = tmp_path / "fakes"
    fake(fakes, "python3", VENV.format(fakes, old))
    assert run(script, accelerator, path=fakes, PYTHON="python3").returncode == 0
    made = calls(fakes)
    assert made[-1] == f"venv -m pip install --quiet --disable-pip-version-check -e .[{extras}]"
    assert ("python3 -m venv .venv" in made) == (not old)
    assert ("python3 -m uv venv --seed --python 3.12 .venv" in made) == bool(old)
    assert set(extras.split(",")) <= set(EXTRAS)
    assert run(script, accelerator, path=fakes).returncode == 0  # the environment is there
    assert sum(".venv" in call for call in calls(fakes)) == 1


@pytest.mark.parametrize("arguments", [["gpu"], [], [""]])
def test_install_refuses_other_accelerators(arguments, tmp_path):
    done = run(LAUNCH / "install", *arguments, path=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    value = (arguments or [""])[0]
    assert done.stderr == f"error: accelerator is '{value}'; expected cpu, cuda or tpu\n"


# Restarts


def command_of(tmp_path, *statuses):
    """A command that ends with one status after the other."""
    for number, status in enumerate(statuses):
        (tmp_path / f"{number}").write_text(str(status), "utf-8")
    body = f"n=$(wc -l < {tmp_path}/calls); exit $(cat {tmp_path}/$((n - 1)))"
    fake(tmp_path, "command", body)
    return tmp_path / "command"


@pytest.mark.parametrize(
    "statuses, most, status",
    [((75, 75, 0), 9, 0), ((75, 2), 9, 2), ((5, 0), 9, 5), ((0,), 9, 0), ((75, 75, 75), 1, 75)],
)
def test_restart(statuses, most, status, tmp_path):
    command = command_of(tmp_path, *statuses)
    done = run(LAUNCH / "restart", command, "a b", "--c", PAUSE="0", RESTARTS=str(most))
    assert done.returncode == status
    expected = 1 if statuses[0] != 75 else min(len(statuses), most + 1)
    assert calls(tmp_path) == expected * ["command a b --c"]
    assert done.stderr.count("status 75, starting it again") == expected - 1


def test_restart_without_a_command():
    done = run(LAUNCH / "restart")
    assert done.returncode == 2 and done.stderr.startswith("error: no command; expected ")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_restart_passes_signals_on(sent, tmp_path):
    """The command saves and ends with 75; its machine goes, so it is not run again."""
    body = f"trap 'sleep 0.2; touch {tmp_path}/saved; exit 75' TERM\n"
    body += f"touch {tmp_path}/ready; while :; do sleep 0.05; done"
    fake(tmp_path, "command", body)
    # Behind `nohup` or `&` the tests themselves ignore SIGINT, and a shell cannot trap what it was
    # started to ignore.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    restart = subprocess.Popen(
        [LAUNCH / "restart", tmp_path / "command"], start_new_session=True,
        env={**os.environ, "PAUSE": "0"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (tmp_path / "ready").exists():
            assert restart.poll() is None
        restart.send_signal(sent)
        _, errors = restart.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGINT, before)
        with contextlib.suppress(ProcessLookupError):  # none is left
            os.killpg(restart.pid, signal.SIGKILL)
    assert restart.returncode == 75 and errors == ""
    assert (tmp_path / "saved").exists() and len(calls(tmp_path)) == 1


GCLOUD = """
next() {{ sed -n 1p {0}/$1; sed -i 1d {0}/$1; }}
case "$*" in
  *" describe "*) next states ;;
  *docs/launch/restart*) exit $(next statuses) ;;
esac"""
SLICE = {
    "NAME": "b32", "ZONE": "us-west4-a", "TYPE": "v5litepod-256",
    "RUNTIME": "v2-alpha-tpuv5-lite", "PAUSE": "0",
}  # fmt: skip


@pytest.fixture
def slices(tmp_path):
    """slices(states, statuses) -> (status, calls, stderr) of docs/launch/tpu_slice."""

    def slices(states, statuses):
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states), "utf-8")
        (tmp_path / "statuses").write_text("".join(f"{s}\n" for s in statuses), "utf-8")
        fake(tmp_path, "gcloud", GCLOUD.format(tmp_path))
        fake(tmp_path, "git", "")
        done = run(LAUNCH / "tpu_slice", "python -m experiments.train --x='a b'",
                   path=tmp_path, **SLICE)  # fmt: skip
        assert not (tmp_path / "states").read_text("utf-8"), "looked at too rarely"
        return done.returncode, calls(tmp_path), done.stderr

    return slices


def kinds(found):
    """The words that tell calls apart, of the calls that do something."""
    words = ("queued-resources create", "queued-resources delete", "docs/launch/install",
             "docs/launch/restart")  # fmt: skip
    return [word.rpartition("/")[2].rpartition(" ")[2] for call in found for word in words
            if word in call]  # fmt: skip


def test_a_slice_from_nothing(slices):
    status, found, _ = slices(["", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], [0])
    assert status == 0 and kinds(found) == ["create", "install", "restart"]
    create = next(call for call in found if " create " in call)
    assert "--spot" in create and "--accelerator-type=v5litepod-256" in create
    remote = [call for call in found if "tpu-vm" in call]
    assert len(remote) == 3 and all("--worker=all" in call for call in remote)
    assert all("--zone=us-west4-a" in call for call in found if call.startswith("gcloud"))
    assert remote[-1].endswith("docs/launch/restart python -m experiments.train --x='a b'")


@pytest.mark.parametrize(
    "states, statuses, expected, did",
    [
        # Lost in the run: the rest of its hosts ended with 5, or ssh with 255.
        (["ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", "", "ACTIVE"], [5, 0], 0,
         ["install", "restart", "delete", "create", "create", "install", "restart"]),
        (["ACTIVE", "ACTIVE"], [75, 0], 0, ["install", "restart"] * 2),
        (["ACTIVE", "ACTIVE"], [2], 2, ["install", "restart"]),
        (["FAILED", "ACTIVE"], [0], 0, ["delete", "create", "install", "restart"]),
    ],
)  # fmt: skip
def test_slices_that_are_lost(states, statuses, expected, did, slices):
    status, found, errors = slices(states, statuses)
    assert status == expected and kinds(found) == did
    assert ("is lost (status 5)" in errors) == (5 in statuses)


def test_a_slice_without_a_name():
    done = run(LAUNCH / "tpu_slice", "true", **{**SLICE, "ZONE": ""})
    assert done.returncode == 2 and done.stderr.startswith("error: ZONE is not set; expected")
    done = run(LAUNCH / "tpu_slice", "a", "b", **SLICE)
    assert done.returncode == 2 and "2 arguments; expected one" in done.stderr


@pytest.mark.parametrize(
    "status, restarts, requeued",
    [(0, "0", False), (75, "0", True), (75, "99", True), (5, "0", True), (5, "20", False),
     (2, "0", False), (3, "0", False)],
)  # fmt: skip
def test_sbatch(status, restarts, requeued, tmp_path):
    fake(tmp_path, "srun", f"exit {status}")
    fake(tmp_path, "scontrol", "")
    done = run("bash", LAUNCH / "train.sbatch", path=tmp_path, SLURM_JOB_ID="41",
               SLURM_RESTART_COUNT=restarts)  # fmt: skip
    assert done.returncode == status
    started, *others = calls(tmp_path)
    assert started.startswith("srun .venv/bin/python -m experiments.train --config=")
    assert others == requeued * ["scontrol requeue 41"]


def test_sbatch_outlives_a_signal(tmp_path):
    """SIGTERM to the script itself: it waits for srun, which has its own."""
    body = f"touch {tmp_path}/ready; sleep 0.5; exit 75"
    fake(tmp_path, "srun", body)
    fake(tmp_path, "scontrol", "")
    job = subprocess.Popen(
        ["bash", LAUNCH / "train.sbatch"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "41"},
    )  # fmt: skip
    try:
        while not (tmp_path / "ready").exists():
            assert job.poll() is None
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 75
    finally:
        job.kill()
    assert calls(tmp_path)[-1] == "scontrol requeue 41"


def test_sbatch_options():
    """Options that the restart needs; each of a form that sbatch knows."""
    lines = (LAUNCH / "train.sbatch").read_text("utf-8").splitlines()
    options = [line.split(" ", 1)[1] for line in lines if line.startswith("#SBATCH ")]
    assert {"--requeue", "--open-mode=append", "--signal=TERM@120"} <= set(options)
    known = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time",
             "signal", "requeue", "open-mode", "output"}  # fmt: skip
    assert {option[2:].partition("=")[0] for option in options} <= known
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])  # would be ignored


# YAML: the keys of the documented schemas that the recipes use, each with its type; {} is any key.
SKYPILOT = {
    "name": str, "workdir": str, "setup": str, "run": str, "envs": {},
    "resources": {
        "infra": str, "accelerators": str, "use_spot": bool,
        "accelerator_args": {"runtime_version": str},
        "job_recovery": {"max_restarts_on_errors": int, "recover_on_exit_codes": list},
    },
}  # fmt: skip
JOB = {
    "apiVersion": str, "kind": str, "metadata": {"name": str},
    "spec": {
        "completionMode": str, "completions": int, "parallelism": int, "backoffLimit": int,
        "template": {
            "spec": {
                "restartPolicy": str, "containers": list, "volumes": list,
            },
        },
    },
}  # fmt: skip


def unknown(value, schema, place=""):
    """Yields what a schema does not have."""
    if schema == {}:
        return
    if not isinstance(schema, dict):
        if not isinstance(value, schema):
            yield f"{place}: {value!r}"
        return
    for key, inner in value.items():
        if key not in schema:
            yield f"{place}/{key}"
        else:
            yield from unknown(inner, schema[key], f"{place}/{key}")


def test_unknown_keys_are_found():
    assert list(unknown({"resources": {"use_spot": "yes", "spot": True}}, SKYPILOT)) == [
        "/resources/use_spot: 'yes'", "/resources/spot",
    ]  # fmt: skip


def test_skypilot():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text("utf-8"))
    assert not list(unknown(task, SKYPILOT))
    assert 75 in task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert task["setup"] == "docs/launch/install tpu"
    for part in ("setup", "run"):
        assert (
            subprocess.run(["bash", "-n"], input=task[part], text=True, check=False).returncode == 0
        )


def test_yaml_of_the_pages():
    """Kubernetes objects are of known keys."""
    found = 0
    for page in PAGES:
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            if block.startswith("--8<--"):
                continue  # a file, which has a test of its own
            job = yaml.safe_load(block)
            assert not list(unknown(job, JOB)) and job["apiVersion"] == "batch/v1", page
            found += 1
    assert found


# Commands of this project, wherever they are in these files.


def commands_in(text):
    """Returns what follows each `python -m`, lines joined, to the end of the command or quote."""
    joined = re.sub(r"\\\n\s*", " ", text)
    joined = "\n".join(line for line in joined.splitlines() if not line.lstrip().startswith("#"))
    return re.findall(r"python -m (?:experiments|converters|clip_jax|rudolph_jax)[^\n'\"]*", joined)


FOUND = [
    (name, command)
    for name in (*SCRIPTS, "skypilot.yaml")
    for command in commands_in((LAUNCH / name).read_text("utf-8"))
]


@pytest.mark.parametrize("name, command", FOUND)
def test_commands_are_parsed(name, command, parse_only, monkeypatch):
    monkeypatch.chdir(ROOT)
    module, *arguments = arguments_of(command)
    with pytest.raises(Parsed):
        assert not module_main(module)(arguments), command
    assert "--distributed=auto" in shlex.split(command)


def test_commands_are_found():
    assert {name for name, _ in FOUND} == {"train.sbatch", "skypilot.yaml"}
