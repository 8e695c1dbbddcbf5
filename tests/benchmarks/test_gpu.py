"""The table of a GPU, filled on this CPU with the smallest pieces."""

import json
import time

import pytest

from benchmarks import gpu
from benchmarks.gpu_peaks import published_roof
from benchmarks.gpu_table import Row, to_markdown


def test_peaks_go_by_whole_words():
    assert published_roof("NVIDIA H100 80GB HBM3").flops["bfloat16"] == 989e12
    assert published_roof("NVIDIA H100 PCIe").read == 2.0e12
    assert published_roof("NVIDIA H200").read == 4.8e12
    assert published_roof("NVIDIA L4").flops["bfloat16"] == 121e12
    assert published_roof("NVIDIA L40") is None and published_roof("cpu") is None


def test_a_row_shows_rates_ratios_and_errors():
    row = Row("drawing 350M", "codes", "batch 1", {"default": 2000.0, "plain": 500.0},
              {"torch": "PyTorch is not installed"}, roof=4000.0, bytes=2_500_000_000)  # fmt: skip
    assert to_markdown({"device": "H100"}, [row]).splitlines()[-1] == (
        "| drawing 350M, batch 1 | codes/s | 2,000 | 500 | 4.00 | PyTorch is not installed |  "
        "| 50.0% | 2.50 |"
    )
    assert row.to_json()["x_plain"] == 4.0 and row.to_json()["x_torch"] is None


def test_every_piece_of_a_gpu_has_a_row_and_a_roof():
    machine = published_roof("NVIDIA H200")
    names = set()
    for piece in gpu.FULL:
        names.add((piece.row.what, piece.row.unit, piece.row.note))
        reply = {"rate": 2.0, "flops": 989e12 / 4}
        roof = piece.roof(machine, reply)
        assert (roof is None) == (piece.task == "loss")
        if piece.task == "train":
            assert roof == 8.0  # at a quarter of the peak
    assert len(names) == len(gpu.FULL)
    # 350M reads 630 MB for a code.
    drawing = gpu.Piece("draw", {"preset": "350M", "batch": 1}).roof(machine, {})
    assert 7000 < drawing < 8000


def test_the_table_is_filled(tmp_path, monkeypatch, capsys):
    """One piece that works, one that fails, in a process of its own."""
    broken = gpu.Piece("encode", {"preset": "no such", "tower": "image", "batch": 1})
    monkeypatch.setattr(gpu, "TINY", (gpu.Piece("loss", {"batch": 8}, torch=True), broken))
    out = tmp_path / "table.json"
    command = [f"--out={out}", f"--work={tmp_path}", "--without=torch", "--minutes=5"]
    assert gpu.main(command) == 0
    data = json.loads(out.read_text())
    done, failed = data["rows"]
    assert data["machine"]["platform"] == "cpu"
    assert "not known" in data["machine"]["published roofs"]
    assert done["rates"]["default"] > 0 and done["x_plain"] > 0 and done["roof_share"] is None
    assert done["errors"] == {"torch": "left out by --without"}
    assert failed["errors"]["default"] == "KeyError: 'no such'" and not failed["rates"]
    assert failed["errors"]["plain"] == "left out: the default failed"
    assert capsys.readouterr().out == out.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    "piece",
    # The session is the same for both, and test_train.py times steps of training.
    [
        pytest.param(piece, marks=[pytest.mark.slow] if piece.task == "train" else [])
        for piece in [p for p in gpu.TINY if p.task in ("draw", "train")][:2]
    ],
)
def test_pieces_run_here(piece):
    session = gpu.Session(time.monotonic() + 300, {})
    try:
        reply = session.run(piece.task, **piece.arguments, plain=False, seconds=0.01)
    finally:
        session.close()
    assert "error" not in reply and reply["rate"] > 0 and reply["bytes"] > 0
    assert piece.task != "train" or reply["flops"] > 0


def test_a_deadline_ends_what_runs():
    with pytest.raises(gpu.InputError, match="no time was left"):
        gpu.Session(time.monotonic() + 1, {}).run("machine")


def test_a_worker_that_outlasts_the_deadline_is_killed(monkeypatch):
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0.0)
    session = gpu.Session(time.monotonic() + 0.2, {})
    with pytest.raises(gpu.InputError, match="the time was over"):
        session.run("machine")
