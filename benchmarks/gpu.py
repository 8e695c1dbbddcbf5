"""Fill the table of a GPU in the minutes that it is lent for: python -m benchmarks gpu

    [--minutes=9] [--out=gpu.json] [--preset=auto] [--without=torch]

Times drawing, encoders, training steps and the loss in the order of importance, then each without
fused attention and without the sampler's loop as a graph ("plain"), then today's compiled PyTorch,
until the minutes are over. Weights are random and made on the device; nothing is downloaded. The
JSON file and a Markdown file beside it are replaced after every figure; what fails, for want of
memory for instance, is written into its row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import clip_jax.config
import rudolph_jax.config
from benchmarks import decode, encode
from benchmarks.gpu_peaks import published_roof
from benchmarks.gpu_table import Row, to_markdown, write
from benchmarks.options import comma_separated
from benchmarks.random_models import DEFAULT_FOLDER, clip_folder, original_folder, rudolph_folder
from benchmarks.roofline import Machine
from benchmarks.worker import Worker
from clip_jax.arguments import check_number
from clip_jax.cli import Parser, run_cli
from clip_jax.config import check_choice
from clip_jax.errors import InputError

PRESETS = ("auto", "full", "tiny")
LEAST_SECONDS = 5.0  # what is left for a piece that is begun at all
B32, B16 = "ruclip-vit-base-patch32-224", "ruclip-vit-base-patch16-224"
L14 = "ruclip-vit-large-patch14-336"


@dataclasses.dataclass(frozen=True)
class Piece:
    """Name a task of `benchmarks.workers.ours_gpu` and its arguments.

    torch: whether PyTorch has a peer of it here.
    """

    task: str
    arguments: Mapping[str, Any]
    torch: bool = False

    @property
    def row(self) -> Row:
        given = self.arguments
        preset = given.get("preset") or given.get("config", "")
        note = f"batch {given['batch']}"
        if self.task == "draw":
            return Row(f"drawing {preset}", "codes", note)
        if self.task == "encode":
            return Row(preset, encode.TOWERS[given["tower"]], note)
        if self.task == "train":
            eight = ", 8-bit products" * given["fp8"]
            return Row(f"training {preset}{eight}", "examples", note)
        return Row("loss of all pairs, tiled; plain: gathered", "pairs", note)

    def roof(self, machine: Machine, reply: Mapping[str, Any]) -> float | None:
        """Return units a second that the published peaks allow; None: no roof is counted."""
        given = self.arguments
        if self.task == "train":
            return reply["rate"] * machine.flops["bfloat16"] / reply["flops"]
        batch = given["batch"]
        if self.task == "draw":
            config = rudolph_jax.config.PRESETS[given["preset"]]
            least = decode.step_cost(config, batch, "bfloat16")
        elif self.task == "encode":
            model = clip_jax.config.PRESETS[given["preset"]]
            least = encode.cost(model, given["tower"], batch, "bfloat16")
        else:  # its products are of float32 at full precision
            return None
        return batch / machine.seconds("bfloat16", *least)


def _draw(preset: str, batch: int, torch: bool = False) -> Piece:
    return Piece("draw", {"preset": preset, "batch": batch}, torch)


def _encode(preset: str, batch: int, torch: bool = False) -> list[Piece]:
    return [
        Piece("encode", {"preset": preset, "tower": tower, "batch": batch}, torch)
        for tower in encode.TOWERS
    ]


def _train(config: str, batch: int, preset: str = "", fp8: bool = False) -> Piece:
    return Piece("train", {"config": config, "preset": preset, "batch": batch, "fp8": fp8})


# In the order of importance. Batches of training are halved where they do not fit.
FULL = (
    _draw("350M", 1, torch=True), _draw("350M", 256), _train("rudolph_350m", 64),
    *_encode(B32, 256, torch=True), _train("ruclip_vit_base_patch16_224", 512),
    _draw("350M", 32, torch=True), _draw("1.3B", 1), _draw("2.7B", 1),
    _train("ruclip_vit_large_patch14_336", 128), *_encode(B16, 256, torch=True),
    *_encode(L14, 64), _draw("1.3B", 256), _draw("2.7B", 256), _draw("1.3B", 32),
    _draw("2.7B", 32), Piece("loss", {"batch": 32768}), _train("rudolph_350m", 64, fp8=True),
    _train("ruclip_vit_large_patch14_336", 128, fp8=True),
)  # fmt: skip
TINY = (
    _draw("tiny", 2, torch=True), *_encode("tiny", 4, torch=True),
    _train("rudolph_350m", 2, preset="tiny"), _train("rudolph_350m", 2, preset="tiny", fp8=True),
    _train("ruclip_vit_base_patch16_224", 4, preset="tiny"), Piece("loss", {"batch": 64}),
)  # fmt: skip


class Session:
    """Run pieces in one process of ours, started again where it ended, until the deadline."""

    def __init__(self, deadline: float, environment: Mapping[str, str]) -> None:
        self.deadline, self._environment = deadline, environment
        self._worker: Worker | None = None

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()

    def run(self, task: str, **arguments: Any) -> Any:
        """Return what a task of ours replies; InputError where it ended or the time is over."""
        if self._worker is None:
            self._worker = Worker("ours_gpu", environment=self._environment)
        try:
            with self.limited(self._worker):
                return self._worker.call(task, **arguments).value
        except InputError:
            self.close()
            raise

    @contextlib.contextmanager
    def limited(self, worker: Worker) -> Iterator[None]:
        """End a worker at the deadline; what waits for it then raises InputError."""
        if self.left < LEAST_SECONDS:
            raise InputError("no time was left")
        timer = threading.Timer(self.left, worker.kill)
        timer.start()
        try:
            yield
        except InputError as error:
            if self.left <= 0:
                raise InputError("the time was over") from error
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.__exit__()
            self._worker = None


def measure(
    pieces: Sequence[Piece], session: Session, machine: Machine | None, seconds: float,
    show: Callable[[list[Row]], None],
) -> Iterator[tuple[Piece, Row]]:
    """Fill in the rows of the pieces, ours alone; yields each piece with its row at the end.

    seconds: of timed calls, without compilation. show: what is called after each figure.
    """
    rows = [piece.row for piece in pieces]
    for variant in ("default", "plain"):
        for piece, row in zip(pieces, rows, strict=True):
            print(f"{row.what}, {row.note}: {variant}", file=sys.stderr, flush=True)
            arguments = dict(piece.arguments)
            try:
                if variant == "plain" and "default" in row.errors:
                    raise InputError("left out: the default failed")
                reply = session.run(
                    piece.task, **arguments, plain=variant == "plain", seconds=seconds
                )
                if "error" in reply:
                    raise InputError(reply["error"])
            except InputError as error:
                row.errors[variant] = str(error)
            else:
                row.rates[variant] = reply["rate"]
                if variant == "default":
                    row.bytes = reply["bytes"]
                    row.note = f"batch {reply.get('batch', arguments['batch'])}"
                    row.roof = None if machine is None else piece.roof(machine, reply)
            show(rows)
    yield from zip(pieces, rows, strict=True)


def measure_torch(piece: Piece, session: Session, work: Path, seconds: float) -> float:
    """Return the rate of PyTorch's compiled peer on the GPU; its weights lie in `work`."""
    given = piece.arguments
    arguments: dict[str, Any] = {"batch": given["batch"], "dtype": "bfloat16", "compiled": True}
    if piece.task == "draw":
        folder = rudolph_folder(given["preset"], work)
        middle = rudolph_jax.config.PRESETS[given["preset"]].image_tokens_per_side ** 2 // 2
        arguments |= {"original": str(original_folder(folder)), "position": middle}
        module, task, most, call = "torch_decode", "decode", middle - 1, {}
    else:
        folder = clip_folder(given["preset"], work)
        module, task, most, call = "torch_encode", "encode", sys.maxsize, {"tower": given["tower"]}
    with Worker(module) as worker, session.limited(worker):
        worker.call("setup", folder=str(folder), **arguments)
        worker.call(task, repeats=1, **call)
        one = worker.call(task, repeats=1, **call).wall_seconds
        repeats = min(max(int(seconds / one), 1), most)
        return given["batch"] * repeats / worker.call(task, repeats=repeats, **call).wall_seconds


def torch_is_missing(without: Sequence[str]) -> str:
    """Return why PyTorch is left out; "": it is here and has a GPU."""
    if "torch" in without:
        return "left out by --without"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    has_gpu = subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    return "" if has_gpu else "PyTorch has no GPU"


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks gpu", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=9.0, help="after which nothing runs any more (9.0)")
    add("--out", type=Path, default=Path("gpu.json"), metavar="FILE",
        help="JSON; the Markdown is written next to it (gpu.json)")
    add("--preset", default="auto",
        help=f"{', '.join(PRESETS)}; auto is full on a GPU, else tiny (auto)")
    add("--without", type=comma_separated, default=(), help="leave out: torch (nothing)")
    add("--work", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER",
        help=f"of PyTorch's random models and of compiled programs ({DEFAULT_FOLDER})")
    args = parser.parse_args(argv)
    check_choice("--preset", args.preset, PRESETS)
    minutes = check_number("--minutes", args.minutes, 0, wanted="a positive number")
    for name in args.without:
        check_choice("--without", name, ("torch",))
    if args.out.suffix == ".md":
        raise InputError(f"--out is {args.out}; expected a JSON file, beside which the .md is put")
    environment = {"JAX_COMPILATION_CACHE_DIR": str(args.work / "programs"),
                   "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}  # fmt: skip
    session = Session(time.monotonic() + 60 * minutes, environment)
    try:
        fill_table(session, args)
    finally:
        session.close()


def fill_table(session: Session, args: Any) -> None:
    """Measure all that fits, and print where it is written."""
    about: dict[str, Any] = session.run("machine")
    tiny = args.preset == "tiny" or (args.preset == "auto" and about["platform"] != "gpu")
    pieces, seconds = (TINY, 0.05) if tiny else (FULL, 2.0)
    machine = published_roof(about["device"])
    about["published roofs"] = (
        f"of {about['device']!r} are not known: no share of them, no MFU" if machine is None else
        f"{machine.flops['bfloat16'] / 1e12:,.0f} TFLOP/s bfloat16, {machine.read / 1e9:,.0f} GB/s"
    )  # fmt: skip
    reached = session.run("roofs", **_roof_sizes(tiny), seconds=seconds)
    about["reached"] = reached.get("error") or (
        f"{reached['flops'] / 1e12:,.3g} TFLOP/s bfloat16, {reached['read'] / 1e9:,.3g} GB/s"
    )
    rows: list[Row] = []

    def show(found: list[Row]) -> None:
        rows[:] = found
        write(args.out, about, rows)

    measured = list(measure(pieces, session, machine, seconds, show))
    session.close()  # its memory is PyTorch's now
    missing = torch_is_missing(args.without)
    for piece, row in measured:
        if piece.torch:
            try:
                if missing:
                    raise InputError(missing)
                row.rates["torch"] = measure_torch(piece, session, args.work, seconds)
            except InputError as error:
                row.errors["torch"] = str(error)
            show(rows)
    print(to_markdown(about, rows), end="")
    print(f"written to {args.out} and {args.out.with_suffix('.md')}", file=sys.stderr)


def _roof_sizes(tiny: bool) -> dict[str, int]:
    return {"side": 64, "megabytes": 1} if tiny else {"side": 8192, "megabytes": 2048}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: _run(argv), argv)


if __name__ == "__main__":
    sys.exit(main())
