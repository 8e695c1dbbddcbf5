"""Names in pickles of training programs that stand for plain data besides the weights.

Examples are settings, counters, paths and scores. None of these is imported or called:
`torch_unpickler.py` makes an empty `OpaqueObject` of each.
"""

from __future__ import annotations

# (module, name) of classes, and of functions that make such data.
PLAIN_DATA = frozenset(
    {
        ("argparse", "Namespace"),
        ("collections", "Counter"),
        ("collections", "defaultdict"),
        ("pathlib", "PosixPath"),
        ("pathlib", "WindowsPath"),
        ("torch", "device"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("_codecs", "encode"),  # bytes in protocol 2
        ("builtins", "set"),
        ("__builtin__", "set"),
    }
)
# Names that are mentioned and never called: what a defaultdict makes, dtypes.
UNCALLED_GLOBALS = frozenset(
    {
        *((module, name) for module in ("builtins", "__builtin__")
          for name in ("dict", "float", "int", "list")),
        *(("torch", f"float{bits}") for bits in (16, 32, 64)),
        *(("torch", f"int{bits}") for bits in (8, 16, 32, 64)),
        *(("torch", name) for name in ("bfloat16", "uint8", "bool")),
    }
)  # fmt: skip
