import importlib

import pytest

from benchmarks.__main__ import make_parser
from benchmarks.options import Options
from benchmarks.roofline import Machine

MACHINE = Machine("none", {"float32": 1e12, "bfloat16": 2e12}, read=1e10, copy=1e10)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Run a benchmark in one short round, ours alone, with a made-up roofline."""

    def run(name, *argv):
        module = importlib.import_module(f"benchmarks.{name}")
        monkeypatch.setattr(module, "SECONDS", 0.01, raising=False)
        options = Options(1, tmp_path / "models", original_python=None, torch=False)
        args = make_parser().parse_args([name, *argv])
        return [table.to_json() for table in module.measure(args, options, MACHINE)]

    return run
