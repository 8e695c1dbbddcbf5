"""All commands of this repository that people call, by the names of their modules."""

import importlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for package in ("benchmarks", "clip_jax", "converters", "experiments", "rudolph_jax")
    for file in (ROOT / package).rglob("*.py")
    if "workers" not in file.parts  # requests come from benchmarks, not from people
    and 'if __name__ == "__main__"' in file.read_text(encoding="utf-8")
)


def main_of(command: str):
    package = command in ("benchmarks", "clip_jax", "converters", "rudolph_jax")
    return importlib.import_module(f"{command}.__main__" if package else command).main
