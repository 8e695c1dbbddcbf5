"""The command line: `python -m converters KIND SRC DST`, `python -m converters export SRC DST`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clip_jax.errors import InputError
from converters import KINDS, convert, export, presets
from converters.conversion import DTYPES

ABOUT = "Foreign checkpoints to model folders (KIND), and model folders back (export)."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m converters", description=ABOUT)
    commands = parser.add_subparsers(dest="kind", required=True, metavar="KIND|export")
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
    command = commands.add_parser("export", help="a model folder back to the original's files")
    command.add_argument("src", help="the model folder")
    command.add_argument("dst", help="the folder to write")
    args = parser.parse_args(argv)
    try:
        if args.kind == "export":
            print(export(args.src, args.dst))
        else:
            preset = getattr(args, "preset", None)
            print(convert(args.kind, args.src, args.dst, args.dtype, preset))
    except (InputError, OSError) as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
