import json

from benchmarks import decode
from benchmarks.__main__ import main
from benchmarks.roofline import Machine
from rudolph_jax.config import PRESETS

TINY = PRESETS["tiny"]


def test_a_benchmark_runs_and_leaves_its_ratios(tmp_path, capsys):
    out, work = tmp_path / "found.json", tmp_path / "models"
    argv = ["decode", "--preset=tiny", "--batches=2", "--dtypes=float32", "--rounds=1",
            "--without=torch,original", f"--work={work}", f"--out={out}"]  # fmt: skip
    assert main(argv) == 0
    (table,) = json.loads(out.read_text())["decode"]
    ours = {row["name"]: row for row in table["rows"] if row["name"].startswith("ours")}
    assert set(ours) == {"ours float32", "ours float32, full cache"}
    assert all(row["rate"] > 0 and row["ratio"] > 0 for row in ours.values())
    assert 0 <= ours["ours float32, full cache"]["drift"] < 1e-4
    assert "| ours float32 |" in capsys.readouterr().out


def test_bfloat16_halves_the_bytes_read_and_kernels_are_read_once():
    flops, read = decode.step_cost(TINY, 1, "float32")
    assert decode.step_cost(TINY, 1, "bfloat16") == (flops, read / 2)
    flops_8, read_8 = decode.step_cost(TINY, 8, "float32")
    assert flops_8 == 8 * flops
    kernels = 4 * (TINY.layers * 12 * TINY.width**2 + TINY.image_vocab_size * TINY.width)
    assert kernels < read < read_8 < 8 * read


def test_the_roofline_is_the_slower_of_the_two_limits():
    machine = Machine("", {"float32": 100.0}, read=10.0, copy=1.0)
    assert machine.seconds("float32", 200.0, 5.0) == 2.0
    assert machine.seconds("float32", 200.0, 50.0) == 5.0
