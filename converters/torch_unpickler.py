"""Unpickler of PyTorch checkpoints that runs nothing the file names.

Python's unpickler calls whatever the file says. This interpreter knows only the opcodes that
`torch.save` and TorchScript write, builds plain containers and descriptions of tensors, and refuses
every other opcode and every other global by name.
"""

from __future__ import annotations

import io
import itertools
import pickletools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from clip_jax.errors import InputError
from converters.plain_data import PLAIN_DATA, UNCALLED_GLOBALS

# A tensor takes some 40; torch.save of 2,000 tensors writes less than 100,000.
MAX_OPCODES = 1_000_000
STORAGES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


@dataclass(frozen=True, slots=True)
class Global:
    """Hold a name in the pickle. It is never imported; slots leave nothing to set on it."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Describe a flat run of numbers: the record `data/KEY` of the archive."""

    dtype: np.dtype
    key: str
    elements: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """Describe a strided view of a storage, in elements, as the file states it: not checked yet."""

    storage: Storage
    offset: Any
    shape: Any
    strides: Any


class Module:
    """Hold the attributes of an object of a TorchScript archive. kind: its class."""

    __slots__ = ("attributes", "kind")

    def __init__(self, kind: Global) -> None:
        self.kind = kind
        self.attributes: dict[Any, Any] = {}


class OpaqueObject:
    """Stand for an object of a class in PLAIN_DATA, whose content is dropped."""

    __slots__ = ()


class MalformedPickle(ValueError):
    """Report what is wrong with the pickle, without the file's name."""


def unpickle(data: bytes, where: str) -> Any:
    """Return the object in a pickle, of built-in types, `Tensor`, `Module` and `OpaqueObject`.

    where: the file's name in errors. Anything unexpected raises InputError.
    """
    try:
        return _run(data)
    except MalformedPickle as error:
        raise InputError(f"{where}: {error}") from error
    except IndexError as error:  # a pop from an empty stack
        raise InputError(f"{where}: damaged pickle, an opcode lacks its operands") from error
    except (ValueError, OverflowError, struct.error) as error:  # pickletools on damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where}: damaged pickle ({reason})") from error


def safe_repr(foreign: object) -> str:
    """Format a name or number of a file for errors: on one line, quoted, truncated."""
    if isinstance(foreign, (str, bytes)):
        return repr(foreign) if len(foreign) <= 200 else f"{foreign[:200]!r}..."
    if isinstance(foreign, int) and foreign.bit_length() <= 64:
        return repr(foreign)
    if isinstance(foreign, (list, tuple)):
        flat = (item for item in foreign[:8] if not isinstance(item, (list, tuple)))
        items = ", ".join(map(safe_repr, flat))
        return f"[{items}{', ...' if len(foreign) > 8 else ''}]"
    return f"of type {type(foreign).__name__}"  # its repr may be endless


def _run(data: bytes) -> Any:
    stack: list[Any] = []
    outer: list[list[Any]] = []  # the stack below each open MARK
    memo: dict[int, Any] = {}
    for name, argument in _operations(data):
        if name in _PUSH_ARGUMENT:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in memo:
                raise MalformedPickle(
                    f"damaged pickle, memo {argument} is read before it is written"
                )
            stack.append(memo[argument])
        elif name == "MARK":
            outer.append(stack)
            stack = []
        elif name in _FIXED_TUPLES:
            size = _FIXED_TUPLES[name]
            stack[-size:] = [tuple(stack[i - size] for i in range(size))]
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, outer.pop()
            if name == "TUPLE":
                stack.append(tuple(items))
            elif name == "APPENDS":
                _extend(stack[-1], items)
            else:
                _set_items(stack[-1], items)
        elif name == "APPEND":
            item = stack.pop()
            _extend(stack[-1], [item])
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name == "GLOBAL":
            stack.append(_global(*(part.removesuffix("\n") for part in argument)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_global(_expect(module, str), _expect(attribute, str)))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_reduce(function, _expect(arguments, tuple)))
        elif name == "NEWOBJ":
            arguments, cls = stack.pop(), stack.pop()
            stack.append(_new_object(cls, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        elif name == "STOP":
            return stack.pop()
    raise MalformedPickle("damaged pickle, it has no end")


def _check_count(count: int) -> None:
    if count > MAX_OPCODES:
        raise MalformedPickle(
            f"its pickle has more than {MAX_OPCODES} opcodes; a checkpoint of some thousand "
            "tensors has a tenth of that"
        )


def _operations(data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield opcodes and their arguments. Not even the argument of a refused opcode is read."""
    stream = io.BytesIO(data)
    for count in itertools.count(1):
        if not (code := stream.read(1)):
            return
        _check_count(count)
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None or opcode.name not in _KNOWN:
            name = opcode.name if opcode else repr(code)
            raise MalformedPickle(
                f"pickle opcode {name} is refused; no PyTorch checkpoint needs it"
            )
        if opcode.name == "GLOBAL":  # pickletools would unescape the names, which pickle does not
            yield opcode.name, (stream.readline().decode(), stream.readline().decode())
        else:
            yield opcode.name, opcode.arg.reader(stream) if opcode.arg else None


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_PUSH_ARGUMENT = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KNOWN = {
    *(*_PUSH_ARGUMENT, *_CONSTANTS, *_FIXED_TUPLES),
    *("PROTO", "FRAME", "MARK", "TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE", "NEWOBJ", "BUILD", "STOP"),
}


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise MalformedPickle(
            f"damaged pickle, {type(value).__name__} where {kind.__name__} must be"
        )
    return value


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is not OpaqueObject:
        _expect(target, list).extend(items)


def _set_items(target: Any, items: list[Any]) -> None:
    if type(target) is OpaqueObject:
        return
    _expect(target, dict)
    if len(items) % 2:
        raise MalformedPickle("damaged pickle, a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):
            raise MalformedPickle(
                f"a dict has a key of type {type(key).__name__}; expected str or int"
            )
        if key in target:
            raise MalformedPickle(f"{safe_repr(key)} is there twice")
        target[key] = value


def _global(module: str, name: str) -> Global:
    found = Global(module, name)
    known = found in _REDUCERS or (module == "torch" and name in STORAGES)
    known = known or (module, name) in PLAIN_DATA | UNCALLED_GLOBALS
    if not known and module.split(".")[0] != "__torch__":
        raise MalformedPickle(
            f"global {safe_repr(f'{module}.{name}')} is refused: only tensors are read; where the "
            "file "
            "is trusted, load it in PyTorch with weights_only=False and torch.save its state dict "
            "alone"
        )
    return found


def _is_plain_data(found: Global) -> bool:
    return (found.module, found.name) in PLAIN_DATA


def _storage(persistent: Any) -> Storage:
    match persistent:
        case ("storage", Global("torch", kind), str(key), str(), int(elements)) if (
            kind in STORAGES and elements >= 0
        ):
            return Storage(STORAGES[kind], key, elements)
    raise MalformedPickle("damaged pickle, a storage is not (kind, key, location, elements)")


def _reduce(function: Any, arguments: tuple[Any, ...]) -> Any:
    reducer = _REDUCERS.get(_expect(function, Global))
    if _is_plain_data(function):
        return OpaqueObject()
    if reducer is None:
        called = safe_repr(f"{function.module}.{function.name}")
        raise MalformedPickle(f"global {called} is refused as a call")
    return reducer(arguments)


def _new_object(cls: Any, arguments: Any) -> Module | OpaqueObject:
    if _is_plain_data(_expect(cls, Global)):
        return OpaqueObject()
    if cls.module.split(".")[0] != "__torch__" or arguments != ():
        raise MalformedPickle(f"an object of {safe_repr(f'{cls.module}.{cls.name}')} is refused")
    return Module(cls)


def _build(target: Any, state: Any) -> None:
    """Set attributes of a TorchScript object; drop those of a dict (`_metadata`) and plain data."""
    if type(target) is OpaqueObject:
        return
    _expect(state, dict)
    if type(target) is Module and not target.attributes:
        target.attributes = state
    elif type(target) is not dict:
        raise MalformedPickle(f"damaged pickle, attributes set on {type(target).__name__}")


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Tensor:
    if not 4 <= len(arguments) <= 7 or type(arguments[0]) is not Storage:
        raise MalformedPickle(
            "damaged pickle, a tensor is not (storage, offset, sizes, strides, ...)"
        )
    if len(arguments) == 7 and arguments[6]:
        raise MalformedPickle("a tensor is marked as conjugated or negated; save its resolved copy")
    return Tensor(*arguments[:4])


def _first(arguments: tuple[Any, ...]) -> Any:
    """Return the value of nn.Parameter(tensor, ...), a typed TorchScript list or torch.Size."""
    if not arguments:
        raise MalformedPickle("damaged pickle, a call without arguments")
    return arguments[0]


def _empty_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise MalformedPickle("damaged pickle, an OrderedDict with arguments")
    return {}


_REDUCERS: dict[Global, Callable[[tuple[Any, ...]], Any]] = {
    Global("collections", "OrderedDict"): _empty_dict,
    Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_parameter"): _first,
    Global("torch._utils", "_rebuild_parameter_with_state"): _first,
    Global("torch", "Size"): _first,
    Global("torch.jit._pickle", "build_intlist"): _first,
    Global("torch.jit._pickle", "build_doublelist"): _first,
    Global("torch.jit._pickle", "build_boollist"): _first,
    Global("torch.jit._pickle", "build_tensorlist"): _first,
    Global("torch.jit._pickle", "restore_type_tag"): _first,
}
