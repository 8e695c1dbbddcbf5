"""Pictures a second: who is timed when, and what is told. No speed is asserted."""

import dataclasses

import numpy as np
import pytest

from clip_jax import ClipConfig, TextConfig, VisionConfig
from clip_jax.errors import InputError
from experiments.evaluate import main
from experiments.evaluation.methods.speed import (
    PUBLISHED_V100,
    JaxEncoder,
    generated_images,
    largest_difference,
    time_encoders,
)
from experiments.evaluation.tasks import speed

CONFIG = ClipConfig(
    VisionConfig(image_size=16, patch_size=8, width=24, layers=2, heads=2, mlp_width=40),
    TextConfig(vocab_size=30, context_length=6, width=16, layers=1, heads=2, mlp_width=20),
    embed_dim=12,
)


class Noted:
    """Writes down who encodes what."""

    device = "none"

    def __init__(self, name, log):
        self.name, self._log = name, log

    def encode(self, pixels):
        self._log.append((self.name, pixels.shape, float(pixels.sum())))
        return np.ones((len(pixels), 12), np.float32)


def run(log, **changed):
    how = {"batch_size": 4, "count": 7, "rounds": 2, "preprocessing": True} | changed
    return time_encoders([Noted("one", log), Noted("other", log)], CONFIG, **how)


def test_encoders_take_turns_on_the_same_images():
    log = []
    timing = run(log)
    # Both once before, then two batches each; the second round begins with the other.
    names = [name for name, _, _ in log]
    assert names == ["one", "other"] + ["one"] * 2 + ["other"] * 4 + ["one"] * 2
    assert {shape for _, shape, _ in log} == {(4, 16, 16, 3)}
    sums = [total for _, _, total in log[2:]]
    assert sums[:2] == sums[2:4] == sums[4:6] == sums[6:] and sums[0] != sums[1]
    assert {name: len(rates) for name, rates in timing.rounds.items()} == {"one": 2, "other": 2}


def test_without_preprocessing_pixels_are_ready():
    log = []
    run(log, preprocessing=False)
    assert len({total for _, _, total in log}) == 1


def test_images_are_cifars_size():
    images = generated_images(3)
    assert [image.size for image in images] == [(32, 32)] * 3
    assert images[0].tobytes() == generated_images(1)[0].tobytes() != images[1].tobytes()


def test_the_table_has_the_published_number_where_it_belongs():
    preset = "ruclip-vit-base-patch32-224"
    assert PUBLISHED_V100[preset] == 308.84
    clip = speed.random_clip(CONFIG)
    result = speed.measure(clip, preset, [8, 3], count=8, rounds=1, with_torch=False)
    lines = speed.table("tiny", result).splitlines()
    assert "rudolph-jax on cpu, " in lines[0] and len(lines) == 8
    with_number = [line for line in lines if "308.84" in line]
    assert len(with_number) == 1 and with_number[0].startswith("| 8 | with |")
    assert all(timing["medians"]["rudolph-jax"] > 0 for timing in result["timings"])
    assert largest_difference(JaxEncoder(clip), JaxEncoder(clip), CONFIG) == 0


def test_mistakes_are_one_line(capsys):
    assert main(["speed", "--preset=tiny", "--batch-sizes=8,no"]) == 2
    assert "--batch-sizes is '8,no'" in capsys.readouterr().err
    with pytest.raises(InputError, match="rounds is 0"):
        run([], rounds=0)


@pytest.mark.torch
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_twin_of_transformers_computes_the_same(activation):
    from experiments.evaluation.methods.torch_clip import TorchEncoder

    config = dataclasses.replace(CONFIG, activation=activation)
    clip = speed.random_clip(config)
    assert largest_difference(JaxEncoder(clip), TorchEncoder(clip), config) < 1e-5
