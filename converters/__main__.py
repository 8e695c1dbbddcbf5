"""The command line: `python -m converters KIND|export|jax-export|pretrained|share|verify ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clip_jax.cli import Parser, run_cli
from clip_jax.digests import REMEDY
from clip_jax.errors import InputError
from converters import KINDS, convert, export, presets, pretrained, share
from converters.conversion import DTYPES
from converters.kinds import activations, holds_tensors, takes_vocabulary
from converters.released import RELEASED
from converters.stablehlo import jax_export
from converters.verification import Verified, record, verify

OPTIONS = ("preset", "vocabulary", "activation", "entry", "prefix")
ABOUT = "Foreign checkpoints to model folders (KIND) and back (export); models from and to a hub."


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: print(_run(argv)), argv)


def _run(argv: Sequence[str]) -> object:
    args = _parser().parse_args(argv)
    if args.kind == "export":
        return export(args.src, args.dst)
    if args.kind == "jax-export":
        return jax_export(args.src, args.dst)
    if args.kind == "pretrained":
        return pretrained(args.model, args.dtype)
    if args.kind == "verify":
        return _verify(args.folder, args.write)
    if args.kind == "share":
        how = {"private": args.private, "licence": args.licence, "evaluations": args.evaluation}
        return share(args.folder, args.repo, **how)
    asked = {name: getattr(args, name, None) for name in OPTIONS}
    return convert(args.kind, args.src, args.dst, args.dtype, **asked)


def _verify(folder: str, write: bool) -> Verified:
    if write:
        return record(folder)
    verified = verify(folder)
    if verified.faults:
        print(verified)
        raise InputError(f"{folder}: faults: {len(verified.faults)}; {REMEDY}")
    return verified


def _parser() -> Parser:
    parser = Parser(prog="python -m converters", description=ABOUT)
    commands = parser.add_subparsers(
        dest="kind", required=True, metavar="KIND|export|jax-export|pretrained|share|verify"
    )
    for kind, module in KINDS.items():
        about = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(kind, help=about, description=about)
        command.add_argument("src", help="the foreign checkpoint: file or folder")
        command.add_argument("dst", help="the model folder to write")
        command.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the parameters")
        if presets(kind):
            command.add_argument(
                "--preset",
                choices=presets(kind),
                help="which published model it is, where it comes without config.json "
                "(by default told from the sizes of its tensors)",
            )
        if takes_vocabulary(kind):
            command.add_argument(
                "--vocabulary",
                help="file or folder of its byte-level BPE (by default what lies beside SRC)",
            )
        if activations(kind):
            command.add_argument(
                "--activation",
                choices=activations(kind),
                help="which one the weights were trained with, where the files do not tell it",
            )
        if holds_tensors(kind):
            command.add_argument(
                "--entry",
                help="which of several state dicts in the file, such as model_ema "
                "(by default the only one)",
            )
            command.add_argument(
                "--prefix",
                help="take only the tensors whose names begin with it, without it, such as model.",
            )
    command = commands.add_parser("export", help="a model folder back to the original's files")
    command.add_argument("src", help="the model folder")
    command.add_argument("dst", help="the folder to write")
    about = "a model's functions as StableHLO, for programs without this package"
    command = commands.add_parser("jax-export", help=about, description=about)
    command.add_argument("src", help="the model folder")
    command.add_argument("dst", help="the folder to write")
    about = "the folder of a published model, downloaded and converted once"
    command = commands.add_parser(
        "pretrained", help=about, description=f"{about}. Released: {', '.join(RELEASED)}"
    )
    command.add_argument("model", help="a released name, or OWNER/NAME on the hub")
    command.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the parameters")
    command = commands.add_parser("share", help="a model folder to the hub, with a model card")
    command.add_argument("folder", help="the model folder")
    command.add_argument("repo", help="OWNER/NAME; made where it does not exist")
    command.add_argument("--private", action="store_true", help="a repository that is made")
    command.add_argument("--licence", help="the hub's identifier, such as apache-2.0")
    command.add_argument(
        "--evaluation", action="append", default=[], metavar="FILE", help="JSON, for the card"
    )
    about = "compare a model folder, or a run's checkpoints, with what was recorded at saving"
    command = commands.add_parser("verify", help=about, description=about)
    command.add_argument("folder", help="a model folder, a training run's folder, or a checkpoint")
    command.add_argument(
        "--write", action="store_true", help="record a model folder as it is now, after an edit"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
