"""Computes the steps a second of a run from the times in its TensorBoard files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

TAG = "train/loss"


def steps_per_second(folder: str | Path) -> float | None:
    """Measure from the first to the last logged step of the process that ended the run, or None.

    Compilation, which is over when the first step is logged, does not count; evaluations and
    checkpoints between the two do.
    """
    files = sorted(Path(folder, "tensorboard").glob("events.*"))
    of_file = [[(event.step, event.wall_time) for event in _events(file)] for file in files]
    # The one that came furthest, not the newest: the system's clock may have gone back.
    points = max(of_file, key=lambda points: points[-1][0] if points else 0, default=[])
    if len(points) < 2 or points[-1][1] <= points[0][1]:
        return None
    return (points[-1][0] - points[0][0]) / (points[-1][1] - points[0][1])


def _events(file: Path) -> Iterator[Event]:
    """Yields the events with the loss.

    A record is its length (uint64), a checksum, the event, a checksum.
    """
    with file.open("rb") as stream:
        while len(header := stream.read(12)) == 12:
            (length,) = struct.unpack("<Q", header[:8])
            event = Event.FromString(stream.read(length))
            stream.read(4)
            if any(value.tag == TAG for value in event.summary.value):
                yield event
