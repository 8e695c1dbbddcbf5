import dataclasses
import json

import jax.numpy as jnp
import pytest

from benchmarks import scaling
from benchmarks.__main__ import make_parser
from benchmarks.options import Options
from benchmarks.result import Series
from benchmarks.roofline import Machine
from rudolph_jax.cache_window import cache_window
from rudolph_jax.config import PRESETS
from rudolph_jax.masks import layer_mask_types

TINY = PRESETS["tiny"]


def test_a_bar_for_each_row_by_the_first_series():
    series = Series("Time", "batch", "ms", (1, 2), {"a": [10.0, 30.0], "b": [1.0, 200.0]})
    assert series.lines()[0] == "**Time**, ms"
    assert series.lines()[-2:] == [f"| 1 | 10 | 1 | {'#' * 10} |", f"| 2 | 30 | 200 | {'#' * 30} |"]
    assert json.loads(json.dumps(series.to_json()))["series"]["b"] == [1.0, 200.0]


def test_all_sizes_are_measured_and_plotted(tmp_path, monkeypatch):
    calls = []

    def seconds(config, batch, windowed, rounds):
        calls.append((config.image_tokens_per_side, batch, windowed, rounds))
        return 1e-3 * batch

    monkeypatch.setattr(scaling, "seconds", seconds)
    plot = tmp_path / "scaling.png"
    args = make_parser().parse_args(
        ["scaling", "--presets=tiny", "--batches=1,3", "--sides=4,6", f"--plot={plot}"]
    )
    options = Options(rounds=2, work=tmp_path, original_python=None, torch=False)
    found = list(scaling.measure(args, options, Machine("", {}, 1, 1)))
    side = TINY.image_tokens_per_side
    assert set(calls) == {
        *((side, batch, windowed, 2) for batch in (1, 3) for windowed in (True, False)),
        *((other, 16, windowed, 2) for other in (4, 6) for windowed in (True, False)),
    }
    assert found[0].series["full cache"] == pytest.approx([1.0, 3.0])
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("side", [4, 6])
def test_an_image_adds_keys_and_values_that_masks_see(side):
    config = dataclasses.replace(TINY, image_tokens_per_side=side)
    for windowed in (True, False):
        slots = sum(
            cache_window(config, kind, "image", windowed).num_slots
            for kind in layer_mask_types(config)
        )
        numbers = 2 * slots * config.width
        found = scaling._cache_megabytes(config, windowed)
        assert found == pytest.approx(numbers * jnp.dtype("bfloat16").itemsize / 1e6)


def test_a_step_runs():
    assert scaling.seconds(dataclasses.replace(TINY, layers=2), 2, True, rounds=1) > 0


def test_plans_are_sorted_by_devices_and_other_chips_left_out():
    def row(config, topology, devices, peak):
        mesh = {"data": devices // 2, "fsdp": 2, "tensor": 1}
        return {"config": config, "topology": topology, "mesh": mesh, "peak_bytes": peak}

    rows = [
        row(name, topology, devices, 1e9 * devices)
        for name in scaling.PLANNED
        for topology, devices in (("v4:4x4x4", 64), ("v4:2x2x2", 8), ("v5e:2x2", 4))
    ]
    found = scaling.peak_memory([*rows, row("another", "v4:2x2x2", 8, 5e9)])
    assert found.at == [8, 64]
    assert list(found.series.values()) == [[8.0, 64.0]] * 2
