"""What is shipped: the wheel, its dependencies, its types."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("clip_jax", "converters", "experiments", "rudolph_jax")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def imports(file: Path) -> tuple[set[str], set[str]]:
    """Top-level packages that a file imports: always, and somewhere inside its functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))

    def names(nodes) -> set[str]:
        found = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
        return found

    return names(tree.body), names(ast.walk(tree))


def test_every_import_is_declared():
    extras = PROJECT["optional-dependencies"].values()
    declared = {name_of(text) for text in PROJECT["dependencies"]}
    optional = {name_of(text) for extra in extras for text in extra}
    homes = importlib.metadata.packages_distributions()

    def missing(names: set[str], allowed: set[str]) -> dict[str, list[str]]:
        foreign = names - set(PACKAGES) - set(sys.stdlib_module_names)
        found = {name: [name_of(home) for home in homes.get(name, [name])] for name in foreign}
        return {name: dists for name, dists in found.items() if not allowed & set(dists)}

    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            always, anywhere = imports(file)
            if package != "experiments":  # some of its commands are for an extra
                assert not missing(always, declared), file
            assert not missing(anywhere, declared | optional), file


def test_one_version():
    version = PROJECT["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation and '- name: "rudolph-jax maintainers"' in citation
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_wheel_and_sdist_in_a_new_environment(tmp_path):
    source = tmp_path / "source"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # The wheel is built from the sdist.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert (tmp_path / "dist" / f"rudolph_jax-{PROJECT['version']}.tar.gz").is_file()
    held = set(zipfile.ZipFile(wheel).namelist())
    inside = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert inside <= held
    assert {name.split("/")[0].split("-")[0] for name in held} == set(PACKAGES)
    for package in ("clip_jax", "converters", "rudolph_jax"):
        assert f"{package}/py.typed" in held

    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True)
    # Dependencies come from this environment; what is installed here in place does not.
    (site,) = (environment / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ask = "import clip_jax, converters, experiments, rudolph_jax; print(rudolph_jax.__file__)"
    for arguments, expected in (
        (["-c", ask], str(site)),
        (
            ["-c", "from clip_jax.released import _sources; print(*map(repr, _sources()))"],
            "<function released at",
        ),
        (["-m", "converters", "--version"], f"rudolph-jax {PROJECT['version']}\n"),
        (["-m", "rudolph_jax", "doctor"], "self-test: 9 codes"),
    ):
        ran = subprocess.run(
            [python, "-I", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert expected in ran.stdout
