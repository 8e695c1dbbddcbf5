"""Images of evaluations: drawings of held-out captions, and confusion matrices."""

import dataclasses
import io

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.config.run import TrainConfig
from experiments.data.source import open_split
from experiments.evaluation.during_training import images
from experiments.evaluation.during_training.images import (
    ShownMetrics,
    figures_of,
    make_drawings,
    with_confusion,
)
from experiments.evaluation.report import figures
from experiments.training import loop
from experiments.training.metrics import MetricsWriter, read_metrics
from tests.experiments.small_run import SmallRun


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png()


def test_a_device_without_memory_ends_the_drawings_and_not_the_run(tmp_path, monkeypatch):
    drawn = []

    def draw(params):
        drawn.append(np.asarray(params["w"]))
        if len(drawn) == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return PNG

    monkeypatch.setattr(loop, "make_drawings", lambda config: draw)
    run = SmallRun(evaluators={"own:a": lambda params: {"one": 1.0}}, steps=3, evaluate_every=1)
    run(tmp_path)
    assert [row["step"] for row in read_metrics(tmp_path) if "own:a/one" in row] == [1, 2, 3]
    (file,) = (tmp_path / "images" / "drawings").iterdir()
    assert file.name == "00000001.png" and len(drawn) == 2
    assert (drawn[0] != drawn[1]).any()  # of the parameters at that step


def test_the_sheet_has_the_same_held_out_captions_and_drawings(
    rudolph_train_config, small_rudolph, monkeypatch
):
    shown = []
    monkeypatch.setattr(
        figures, "image_grid", lambda *given, **_: shown.append(given) or b""
    )  # fmt: skip
    for _ in range(2):
        make_drawings(rudolph_train_config)(small_rudolph)
    (first, captions), (second, again) = shown
    rows = open_split(rudolph_train_config.data, "validation")
    assert captions == again and len(set(captions)) == 3
    assert set(captions) <= {row["captions"][0] for row in rows}
    assert np.stack(first).shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(first, second)


def test_what_draws_nothing(rudolph_train_config, train_config):
    def drawings(config=rudolph_train_config, **changes):
        return make_drawings(dataclasses.replace(config, **changes))

    settings = rudolph_train_config.settings
    assert drawings() is not None
    assert drawings(evaluation_images=0) is None
    assert drawings(evaluators=()) is None
    assert drawings(settings=dataclasses.replace(settings, text_to_image=0.0)) is None
    assert drawings(train_config, evaluators=("zero-shot:validation",)) is None
    assert TrainConfig().evaluation_images == 8


@pytest.mark.parametrize("installed", [True, False])
def test_figures_of_an_own_evaluator(installed, tmp_path, monkeypatch, capsys):
    def measure(params):
        return ShownMetrics({"one": 1.0}, {"dots": lambda: PNG})

    monkeypatch.setattr(images, "find_spec", lambda name: installed)
    SmallRun(evaluators={"own:a": measure}, steps=1)(tmp_path)
    assert read_metrics(tmp_path)[-1]["own:a/one"] == 1.0
    assert ("pip install 'rudolph-jax[demo]'" in capsys.readouterr().err) == (not installed)
    file = tmp_path / "images" / "own-a" / "dots" / "00000001.png"
    assert file.exists() == installed


def test_rows_are_true_classes_and_columns_predicted_ones(monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "confusion_matrix", lambda *given: seen.append(given) or b"")
    shown = with_confusion({"accuracy": 0.5}, np.array([0, 0, 2, 2]), np.array([0, 1, 1, 1]), "abc")
    assert shown == {"accuracy": 0.5} and not seen  # others than the first process draw nothing
    figures_of(shown)["confusion"]()
    np.testing.assert_array_equal(seen[0][0], [[1, 1, 0], [0, 0, 0], [0, 2, 0]])
    assert figures_of({"accuracy": 0.5}) == {}


@pytest.mark.parametrize("classes", [3, 25, 300])
def test_a_confusion_matrix_of_any_size(classes, monkeypatch):
    """With names up to thirty classes; dark where all of a class's images are."""
    made = []
    as_png = figures.as_png
    monkeypatch.setattr(figures, "as_png", lambda figure: made.append(figure) or as_png(figure))
    counts = np.diag(np.arange(classes))  # of the first class there is no image
    found = figures.confusion_matrix(counts, [f"класс {i}" for i in range(classes)])
    axes = made[0].axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), np.diag(np.arange(classes) > 0))
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert (labels == [f"класс {i}" for i in range(classes)]) == (classes <= 30)
    assert len(axes.texts) == (classes - 1 if classes <= 12 else 0)
    assert Image.open(io.BytesIO(found)).width < 1600


def test_an_image_in_the_folder_and_in_tensorboard(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    writer = MetricsWriter(tmp_path, 0)
    file = writer.write_image(7, "zero-shot:test/confusion", PNG)
    writer.close()
    assert file == tmp_path / "images" / "zero-shot-test" / "confusion" / "00000007.png"
    assert file.read_bytes() == PNG
    (events,) = (tmp_path / "tensorboard").iterdir()
    data, found = events.read_bytes(), []
    while data:  # length, its checksum, the event, its checksum
        end = 12 + int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12:end]))
        data = data[end + 4 :]
    ((step, value),) = [(event.step, one) for event in found for one in event.summary.value]
    assert (step, value.tag) == (7, "zero-shot_test/confusion")
    assert (value.image.width, value.image.height) == (4, 2)
