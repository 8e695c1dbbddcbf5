import pytest

from benchmarks import loss


def test_the_forms_are_timed_and_agree(tables):
    (table,) = tables("loss", "--batches=16")
    assert [row["name"] for row in table["rows"]] == ["ours, gathered", "ours, tiled"]
    assert all(row["rate"] > 0 and row["drift"] < 1e-3 for row in table["rows"])


def test_its_part_of_a_step_grows_with_the_batch():
    """Count 6 B^2 E FLOPs beside 3 B times the 14.78 GFLOP of ViT-B/32's towers."""
    assert loss.flops_fraction(4096) == pytest.approx(6 * 4096 * 512 / (3 * 14.78e9), rel=0.02)
    assert loss.flops_fraction(32768) == pytest.approx(8 * loss.flops_fraction(4096), rel=0.01)
