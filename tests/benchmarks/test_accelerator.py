"""The table of compiled training steps: resumed by row, and beside another checkout's."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from benchmarks import accelerator
from benchmarks.accelerator import PROGRAMS, main, row_of, settings_of, to_markdown
from benchmarks.one_chip import ENCODER_BATCH, drawing_program, encoder_program
from benchmarks.plan_table import MAX_MICROBATCH, planned_config
from rudolph_jax.config import PRESETS

PLAN = SimpleNamespace(
    step_seconds=0.25, mfu=0.4321, peak_bytes=8e9,
    work={"product": {"seconds": 0.2}, "kernel": {"seconds": 0.04}, "pad": {"seconds": 1e-9}},
)  # fmt: skip


def test_every_program_has_a_config():
    assert set(PROGRAMS.values()) <= set(MAX_MICROBATCH)
    assert {"train 350M", "train ruclip-vit-large-patch14-336"} <= set(PROGRAMS)


def test_a_row_has_the_times_of_its_parts():
    assert row_of(PLAN) == {
        "ms": 250.0, "mfu": 0.4321, "gb": 8.0, "work": {"product": 200.0, "kernel": 40.0},
    }  # fmt: skip
    too_large = SimpleNamespace(step_seconds=None, mfu=None, peak_bytes=2e10, work=None)
    assert row_of(too_large)["ms"] is None and row_of(too_large)["gb"] == 20.0


def test_a_step_has_the_settings_that_cut_it():
    found = settings_of(planned_config("rudolph_1_3b", 256))
    assert found == {"mesh.fsdp": 32, "grad_accum_steps": 2}
    assert settings_of(planned_config("rudolph_1_3b", 64))["mesh.fsdp"] == 8


@pytest.fixture
def compiled(monkeypatch):
    """Returns the list of what was compiled; no TPU compiler is asked."""
    calls = []

    def measure(program, topology):
        calls.append((program, topology))
        return row_of(PLAN)

    monkeypatch.setattr(accelerator, "measure", measure)
    monkeypatch.setattr(accelerator.metadata, "version", lambda name: "1.0")
    return calls


def test_rows_are_kept_and_compared(tmp_path, compiled, capsys):
    out, other = tmp_path / "rows.json", tmp_path / "before.json"
    slow = {"ms": 500.0, "mfu": 0.2, "gb": 9.0, "work": None}
    row = {"program": "train 350M", "slice": "v5e:2x2", "before": None, "after": slow}
    other.write_text(json.dumps({"rows": [row]}))
    command = ["--programs=train 350M,train 1.3B", "--slices=v5e:2x2", f"--out={out}"]
    assert main([*command[:1], "--slices=v5e:2x2", f"--out={out}"]) == 0
    assert main([*command, f"--before={other}"]) == 0
    assert compiled == [("train 350M", "v5e:2x2"), ("train 1.3B", "v5e:2x2")]  # each once
    rows = json.loads(out.read_text())["rows"]
    assert rows[0]["before"] == slow and rows[1]["before"] is None
    assert "| train 350M | v5e:2x2 | 500 | 250 | 20% | 43% | 8.0 | product 200, kernel 40 |" in (
        capsys.readouterr().out
    )
    assert to_markdown(rows).endswith("| train 1.3B | v5e:2x2 | ? | 250 | ? | 43% | 8.0 | "
                                      "product 200, kernel 40 |")  # fmt: skip


def test_programs_of_one_chip_are_named_after_it(tmp_path, compiled):
    out = tmp_path / "rows.json"
    arguments = ["--programs=decode 350M batch 32", "--slices=v5e:2x2,v5e:4x4", f"--out={out}"]
    assert main(arguments) == 0
    assert [row["slice"] for row in json.loads(out.read_text())["rows"]] == ["v5e:1"]
    assert len(compiled) == 1


def test_a_drawing_program_makes_every_code():
    run, shapes, codes = drawing_program("tiny", 3)
    assert codes == PRESETS["tiny"].image_tokens_per_side ** 2
    assert jax.eval_shape(run, *shapes).shape == (3, codes)
    leaves = jax.tree.leaves(shapes[0])
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("tower", ["images", "texts"])
def test_an_encoder_program_encodes_a_batch(tower):
    run, shapes, units = encoder_program("ruclip-vit-base-patch32-224", tower)
    assert units == 1 and jax.eval_shape(run, *shapes).shape == (ENCODER_BATCH, 512)


def test_the_page_has_the_files_rows():
    docs = Path(__file__).parents[2] / "docs"
    rows = json.loads((docs / "accelerators.json").read_text())["rows"]
    assert to_markdown(rows) in (docs / "scaling.md").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--programs=train 350B"], "--programs is 'train 350B'; expected one of train 350M"),
        (["--slices=v9:1"], "--slices is 'v9'; expected one of v4"),
        (["--before={}"], "holds no rows of this benchmark"),
    ],
)
def test_wrong_options(tmp_path, capsys, arguments, message):
    (tmp_path / "list.json").write_text("[]")
    arguments = [argument.format(tmp_path / "list.json") for argument in arguments]
    assert main([*arguments, f"--out={tmp_path / 'out.json'}"]) == 2
    assert message in capsys.readouterr().err
