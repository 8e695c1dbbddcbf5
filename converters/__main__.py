"""The command line: `python -m converters KIND|export|jax-export|pretrained|push-to-hub|verify "
"...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clip_jax.cli import Parser, run_cli
from clip_jax.digests import REMEDY
from clip_jax.errors import InputError
from clip_jax.progress import elapsed_lines
from converters import KINDS, convert, export, presets, pretrained, push_to_hub
from converters.api import activations, has_tensors, takes_vocabulary
from converters.conversion import DTYPES
from converters.registry import PUBLISHED_MODELS
from converters.stablehlo import jax_export
from converters.verification import VerificationResult, record, verify

OPTIONS = ("preset", "vocabulary", "activation", "entry", "prefix")
DESCRIPTION = (
    "Convert foreign checkpoints to model folders (KIND) and back (export); get models from a hub "
    "and "
    "push them."
)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: print(_run(argv)), argv)


def _run(argv: Sequence[str]) -> object:
    args = _parser().parse_args(argv)
    if args.kind == "export":
        with elapsed_lines(f"exporting {args.src}"):
            return export(args.src, args.dst)
    if args.kind == "jax-export":
        with elapsed_lines(f"exporting {args.src}"):
            return jax_export(args.src, args.dst)
    if args.kind == "pretrained":
        return pretrained(args.model, args.dtype)
    if args.kind == "verify":
        with elapsed_lines(f"reading {args.folder}"):
            return _verify(args.folder, args.write)
    if args.kind == "push-to-hub":
        return push_to_hub(
            args.folder,
            args.repo,
            private=args.private,
            licence=args.licence,
            evaluations=args.evaluation,
            local_dir=args.local_dir,
        )
    options = {name: getattr(args, name, None) for name in OPTIONS}
    with elapsed_lines(f"converting {args.src}"):
        return convert(args.kind, args.src, args.dst, args.dtype, **options)


def _verify(folder: str, write: bool) -> VerificationResult:
    if write:
        return record(folder)
    verified = verify(folder)
    if verified.faults:
        print(verified)
        raise InputError(f"{folder}: faults: {len(verified.faults)}; {REMEDY}")
    return verified


def _parser() -> Parser:
    parser = Parser(prog="python -m converters", description=DESCRIPTION)
    commands = parser.add_subparsers(
        dest="kind", required=True, metavar="KIND|export|jax-export|pretrained|push-to-hub|verify"
    )
    for kind, module in KINDS.items():
        about = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(kind, help=about, description=about)
        command.add_argument("src", help="the foreign checkpoint: file or folder")
        command.add_argument("dst", help="the model folder to write")
        command.add_argument(
            "--dtype", choices=DTYPES, default=DTYPES[0], help="of the parameters (float32)"
        )
        if presets(kind):
            command.add_argument(
                "--preset",
                choices=presets(kind),
                help="name of the published model, for a checkpoint without config.json "
                "(by default inferred from tensor shapes)",
            )
        if takes_vocabulary(kind):
            command.add_argument(
                "--vocabulary",
                help="file or folder of its byte-level BPE (by default next to SRC)",
            )
        if activations(kind):
            command.add_argument(
                "--activation",
                choices=activations(kind),
                help="activation of the weights, where the files do not name it",
            )
        if has_tensors(kind):
            command.add_argument(
                "--entry",
                help="name of the state dict, if the file has several, such as model_ema "
                "(by default the only one)",
            )
            command.add_argument(
                "--prefix",
                help="convert only tensors whose names begin with it, such as model., and "
                "remove it",
            )
    command = commands.add_parser(
        "export", help="convert a model folder back to the original's files"
    )
    command.add_argument("src", help="the model folder")
    command.add_argument("dst", help="the folder to write")
    about = "export a model's functions as StableHLO, for programs without this package"
    command = commands.add_parser("jax-export", help=about, description=about)
    command.add_argument("src", help="the model folder")
    command.add_argument("dst", help="the folder to write")
    about = "download and convert a published model once, and print its folder"
    command = commands.add_parser(
        "pretrained",
        help=about,
        description=f"{about}. Published models: {', '.join(PUBLISHED_MODELS)}",
    )
    command.add_argument("model", help="name of a published model, or OWNER/NAME on the hub")
    command.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help="of the parameters (float32)"
    )
    about = "push a model folder to the hub, with a model card"
    command = commands.add_parser("push-to-hub", help=about, description=about)
    command.add_argument("folder", help="the model folder")
    command.add_argument("repo", help="OWNER/NAME; created if absent")
    command.add_argument("--private", action="store_true", help="make a created repository private")
    command.add_argument("--licence", help="the hub's identifier, such as apache-2.0")
    command.add_argument(
        "--evaluation",
        action="append",
        default=[],
        metavar="FILE",
        help="JSON file of results for the card; may be repeated",
    )
    command.add_argument(
        "--local-dir",
        metavar="FOLDER",
        help="write the repository's files to this new folder and upload nothing",
    )
    about = "compare a model folder, or a run's checkpoints, with the digests recorded at saving"
    command = commands.add_parser("verify", help=about, description=about)
    command.add_argument("folder", help="a model folder, a training run's folder, or a checkpoint")
    command.add_argument(
        "--write",
        action="store_true",
        help="record the digests of a model folder again, after an edit",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
