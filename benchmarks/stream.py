"""Memory and time of the stream of a large set: python -m benchmarks.stream [--records 240e6]

Prints a Markdown table. The set's metadata are written in full and opened as any set's; its shards
are not there, and samples are the rows' numbers alone. So what is measured is the index, the order
and the batches, and no disk. Each number of records has a process of its own.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from clip_jax.cli import Parser
from clip_jax.errors import InputError
from experiments.cli.exit_status import exit_status
from experiments.config.data import DataConfig
from experiments.data.source import Split
from experiments.data.sources.schema import SCHEMAS
from experiments.data.sources.shards import features
from experiments.data.sources.tfds_metadata import NAME, VERSION
from experiments.data.stream import batches

BATCHES = 20


def write_pretended_set(folder: Path, records: int, shard_records: int) -> None:
    """Write the metadata of a set of that many records; none of its shards is there."""
    lengths = [shard_records] * (records // shard_records)
    lengths += [records % shard_records] if records % shard_records else []
    named = tfds.core.ShardedFileTemplate(
        data_dir=str(folder), dataset_name=NAME, filetype_suffix="array_record", split="train"
    )
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=NAME, version=tfds.core.Version(VERSION), data_dir=str(folder), module_name=""
        ),
        features=features(SCHEMAS["captions"]),
    )
    info.set_file_format("array_record")
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=0, filename_template=named
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(folder)


@dataclasses.dataclass
class RowNumbersAlone:
    """Samples without a read of the shards that are not there."""

    split: Split

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"row": np.int64(index)}


def measure(records: int, shard_records: int, batch_size: int, processes: int) -> str:
    """Return the line of the table, measured in this process."""
    config = DataConfig(batch_size=batch_size)
    import grain  # noqa: F401 - so that its memory and its import are not counted

    with tempfile.TemporaryDirectory() as folder:
        write_pretended_set(Path(folder), records, shard_records)
        start = time.perf_counter()
        split = Split(Path(folder), "train")
    stream = batches(
        RowNumbersAlone(split), config, seed=0, first_step=1000, process_count=processes
    )
    next(stream)
    started, busy = time.perf_counter() - start, time.process_time()
    for _ in range(BATCHES):
        next(stream)
    seconds = (time.process_time() - busy) / BATCHES
    rows = batch_size // processes
    return (
        f"| {records:,} | {split.shards.shard_count:,} | {started:.1f} s | {_peak():.0f} MB | "
        f"{rows:,} rows: {1000 * seconds:.0f} ms |"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m benchmarks.stream", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument("--records", type=float, nargs="+", default=[240e6, 2e9], metavar="N",
                        help="of the set (240e6 2e9)")  # fmt: skip
    parser.add_argument("--shard-records", type=int, default=4096, metavar="N", help="(4096)")
    parser.add_argument("--batch-size", type=int, default=32768, metavar="N",
                        help="of all processes (32768)")  # fmt: skip
    parser.add_argument("--processes", type=int, default=64, metavar="N", help="(64)")
    args = parser.parse_args(argv)
    for name in ("shard_records", "batch_size", "processes"):
        if getattr(args, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least 1"
            )
    if min(args.records) < 1:
        raise InputError(f"--records is {min(args.records):g}; expected at least 1")
    settings = args.shard_records, args.batch_size, args.processes
    if len(args.records) == 1:
        print(_HEAD, measure(int(args.records[0]), *settings), sep="\n")
        return
    print(_HEAD)
    names = ("--shard-records", "--batch-size", "--processes")
    given = [f"{name}={value}" for name, value in zip(names, settings, strict=True)]
    for records in args.records:
        command = [sys.executable, "-m", "benchmarks.stream", f"--records={records:.0f}", *given]
        found = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        if found.returncode:
            raise InputError(found.stderr.strip())
        print(found.stdout.splitlines()[-1])


_HEAD = """\
| records | shards | opened, first batch | peak of the process | processor time a batch |
|---|---|---|---|---|"""


if __name__ == "__main__":
    sys.exit(main())
