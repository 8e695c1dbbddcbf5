"""A value that a function is given never changes: dataclasses are frozen, with few exceptions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("clip_jax", "rudolph_jax", "converters", "experiments")
CHANGING = {  # they collect what a loop finds
    ("experiments/data/sources/tar_samples.py", "_Scan"),
    ("experiments/evaluation/report/system_results.py", "SystemResults"),
}


def dataclasses_of(path):
    """Yields (name, whether it is frozen) of a module's dataclasses."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for decorator in getattr(node, "decorator_list", ()):
            text = ast.unparse(decorator)
            if text.removeprefix("dataclasses.").partition("(")[0] == "dataclass":
                yield node.name, "frozen=True" in text


@pytest.mark.parametrize("package", PACKAGES)
def test_dataclasses_are_frozen(package):
    changing = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, frozen in dataclasses_of(path)
        if not frozen
    }
    assert changing == {each for each in CHANGING if each[0].startswith(package)}
