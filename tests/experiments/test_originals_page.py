"""The page for those who come from the originals leaves nothing out and names what exists."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows():
    """(module, what its row is about, ours) for each row of the page's tables."""
    found, module = [], ""
    for line in (ROOT / "docs/originals.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("##"):
            module = line.lstrip("# ")
        elif line.startswith("| `"):
            original, ours, difference = (cell.strip() for cell in line.strip("|").split(" | ", 2))
            found.append((module, re.findall(r"`([^`]+)`", original), ours, difference.strip("| ")))
    return found


def test_every_public_name_has_a_row(rows, goldens):
    recorded = json.loads((goldens / "original_names.json").read_text(encoding="utf-8"))["names"]
    expected = sorted(f"{module}.{name}" for module, names in recorded.items() for name in names)
    assert sorted(f"{module}.{name}" for module, names, *_ in rows for name in names) == expected


def test_what_is_named_here_exists(rows):
    named = [name for _, _, ours, _ in rows for name in re.findall(r"`([a-z_]+\.[^`]+)`", ours)]
    assert len(named) > 80
    for name in set(named):
        parts = name.removesuffix("()").split("(")[0].split(".")
        found = importlib.import_module(parts[0])
        for i, part in enumerate(parts[1:], 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[:i]))
            found = getattr(found, part)


def test_nothing_without_a_reason(rows):
    for module, names, ours, difference in rows:
        assert ours.startswith("`") or (ours == "—" and difference), (module, names)
