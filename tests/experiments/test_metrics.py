import io

from experiments.training.metrics import (
    FILE_NAME,
    MetricsWriter,
    Progress,
    last_metrics,
    read_metrics,
)


def test_resuming_drops_what_will_be_taken_again(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 6):
        writer.write(step, {"train/loss": step / 10})
    writer.close()
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"step": 6, "train/lo')  # a crash in the middle of a line
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    writer = MetricsWriter(tmp_path, 3)
    writer.write(4, {"train/loss": 9.0})
    writer.close()
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train/loss"] == 9.0
    assert list((tmp_path / "tensorboard").iterdir())


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path) == [] and last_metrics(tmp_path) == {}


def test_newest_value_of_each_metric(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, {"train/loss": 2.0, "test/accuracy": 0.5})
    writer.write(2, {"train/loss": 1.0})
    writer.close()
    assert last_metrics(tmp_path) == {"train/loss": 1.0, "test/accuracy": 0.5}


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("experiments.training.metrics.time.monotonic", lambda: self.now)


def test_plain_lines_off_a_terminal(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = Progress(0, 100, batch_size=8, stream=stream)
    clock.now += 50  # compilation
    progress.update(1, 5.0)
    for step in range(2, 101):
        clock.now += 0.5
        progress.update(step, 4.0)
    progress.close()
    lines = stream.getvalue().splitlines()
    # One in ten seconds and one at the end; 8 pairs in half a second.
    assert len(lines) == 5
    assert lines[0] == "step 21/100  loss 4.0000  16 examples/s  0:39 left"
    assert lines[-1] == "step 100/100  loss 4.0000  16 examples/s  0:00 left"


def test_a_bar_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = Progress(0, 10, batch_size=8, stream=stream)
    progress.update(1, 5.0)
    progress.log("step 1: accuracy 0.5")
    progress.update(10, 4.25)
    progress.close()
    text = stream.getvalue()
    assert "loss 4.2500" in text and "examples/s" in text and "10/10" in text
    assert "step 1: accuracy 0.5\n" in text
