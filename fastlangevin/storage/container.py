"""The one file format: tensors and a JSON description, both with their digests, in a valid safetensors file.

A safetensors file is eight bytes of length, a JSON header, and the tensors' bytes. Here the header begins with

    {"__metadata__":{"container":"fastlangevin 1","sha256":"...","description":"...","sha256:description":"...",
    "sha256:tensor:NAME":"...", ...}, "NAME":{"dtype":"F32","shape":[...],"data_offsets":[...]}, ...}

The SHA-256 of a tensor is of its dtype, shape and bytes. ``sha256`` is of the length and the header with these 64
digits as zeros; since the header holds the digest of every tensor, and the tensors fill the rest of the file without
a gap, it is the digest of the whole file, for one pass over the bytes. It is checked before anything is parsed.

Everything is in one order (tensors by size of element, then by name), so equal content gives equal bytes, and a header
that is not exactly what this module would write is refused. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.storage.files import open_regular, unreadable, write_whole

__all__ = ["DamagedError", "check_json", "check_room", "read", "write"]

# Bytes; safetensors' own limit is 100 MB. Parsed JSON takes up to 65 times its length (lists in lists), so that a
# description is short, and of the rest, room for the states of networks of some 5,000 parameter tensors, nothing is
# parsed that is not of the form of a header: of that a tensor takes 1 kB.
MAX_DESCRIPTION = 2**20
MAX_HEADER = 2**23
MAX_TENSORS = 2**15
CHUNK = 2**24  # bytes that are read, then digested while they are still in the cache

_BEGINNING = b'{"__metadata__":{"container":"fastlangevin 1","sha256":"'
_LENGTH = 8
_DIGEST = slice(_LENGTH + len(_BEGINNING), _LENGTH + len(_BEGINNING) + 64)  # where it stands in the file

_STRING = rb'"(?:[^"\\]|\\.)*+"'
_NUMBER = rb"[0-9]{1,20}"
# Without backtracking, which would take memory for every repetition.
_HEADER = re.compile(
    rb'\{"__metadata__":\{"container":"fastlangevin 1","sha256":"[0-9a-f]{64}","description":%(string)s'
    rb',"sha256:description":"[0-9a-f]{64}"(?:,"sha256:tensor:(?:[^"\\]|\\.)*+":"[0-9a-f]{64}")*+\}'
    rb'(?:,%(string)s:\{"dtype":"[A-Z0-9]{2,4}","shape":\[(?:%(number)s(?:,%(number)s){0,63}+)?+\],'
    rb'"data_offsets":\[%(number)s,%(number)s\]\})*+\} {0,7}' % {b"string": _STRING, b"number": _NUMBER},
    re.DOTALL,
)

DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class DamagedError(ValueError):
    """A file that is not of this format, or no longer as it was written.

    Attributes:
        path: the file.
        why: what is wrong with it, as a clause: "it ends before its header does".
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged, or no file of this package: {why}")
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str]]:
        # By default an exception is made again from its message alone.
        return type(self), (self.path, self.why)


class _Entry(NamedTuple):
    """A tensor in the header."""

    dtype: str
    shape: list[int]
    sha256: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and their description to one file, whole or not at all: see :func:`files.write_whole`.

    Tensors on the CPU that are contiguous are written from where they are; others are copied to the host first. They
    must not change meanwhile: a file whose tensors do not have their digests is refused by :func:`read`.

    Args:
        path: file to write, replaced if it exists.
        tensors: dense, of the dtypes in ``DTYPES``. Shape, dtype and bits are kept; memory that two of them share is
            written twice.
        description: JSON-like. Tuples come back as lists.

    Raises:
        TypeError: a tensor or the description cannot be written.
        ValueError: the description is too long, or there are too many tensors.
        OSError: the file could not be written; what stood at ``path`` is untouched.
    """
    text = check_json("description", description)
    host = {name: _on_host(name, tensor) for name, tensor in tensors.items()}
    memory = {name: _memory(tensor) for name, tensor in host.items()}
    entries = {}
    for name, tensor in host.items():
        kind, shape = _NAMES[tensor.dtype], list(tensor.shape)
        digest = hashlib.sha256(_kind(kind, shape))
        digest.update(memory[name])
        entries[name] = _Entry(kind, shape, digest.hexdigest())
    header = bytearray(_header(entries, text, "0" * 64))
    _check_room(len(header) - _LENGTH, len(text), len(entries))
    header[_DIGEST] = _seal(header).encode()
    write_whole(path, itertools.chain([bytes(header)], (memory[name] for name in _order(entries))))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write` wrote; every byte is checked.

    No memory is taken for a length that the file claims before its real size bears it out; each tensor is read straight
    into its own memory.

    Args:
        path: file that :func:`write` wrote.

    Returns:
        Tensors on the CPU, and the description.

    Raises:
        DamagedError: a ``ValueError``: the file is damaged, or of another kind.
        OSError: it cannot be read; :class:`fastlangevin.storage.files.NotAFileError` if it is a pipe, a device
            or a folder.
    """
    source = Path(path)
    try:
        with open_regular(source) as file:
            return _read(file)
    except OSError as error:
        if error.errno == errno.EIO:  # a bad sector is damage like any other
            raise DamagedError(source, "the disk cannot read it") from error
        raise unreadable(source, error) from error
    except ValueError as error:
        raise DamagedError(source, str(error)) from error


def check_room(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Raises what :func:`write` would raise of tensors of these names, dtypes and shapes: before the work on them.

    Args:
        tensors: as for :func:`write`.
        description: JSON-like.

    Raises:
        TypeError: a tensor or the description cannot be written.
        ValueError: they are too many, or the description is too long.
    """
    text = check_json("description", description)
    entries = {}
    for name, tensor in tensors.items():
        _check_kind(name, tensor)
        entries[name] = _Entry(_NAMES[tensor.dtype], list(tensor.shape), "0" * 64)
    _check_room(len(_header(entries, text, "0" * 64)) - _LENGTH, len(text), len(entries))


def _check_room(header: int, text: int, tensors: int) -> None:
    if tensors > MAX_TENSORS:
        raise ValueError(f"there are {tensors} tensors, a file has room for {MAX_TENSORS}; join those of a kind")
    if text > MAX_DESCRIPTION:
        raise ValueError(
            f"the description takes {text} bytes as JSON, a file has room for {MAX_DESCRIPTION}; make tensors of what "
            "is long"
        )
    if header > MAX_HEADER:
        raise ValueError(
            f"description and names take {header} bytes as JSON, a file has room for {MAX_HEADER}; give the tensors "
            "shorter names"
        )


def check_json(name: str, value: Mapping[str, Any]) -> str:
    """The value as JSON, always the same for equal values.

    Args:
        name: of the argument, for the message.
        value: dicts with strings as keys, lists, strings, finite numbers, booleans and None.

    Returns:
        JSON text with its keys in order.

    Raises:
        TypeError: it is made of anything else.
    """
    try:
        if not isinstance(value, Mapping):
            raise TypeError(f"it is a {type(value).__name__}, not a dict")
        _check_keys(value)
        return json.dumps(dict(value), sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"{name} must be made of dicts with strings as keys, lists, strings, finite numbers, booleans and None: "
            f"{error}"
        ) from error


def _check_keys(value: object) -> None:
    # json.dumps would quietly make strings of numbers, and of two keys one: an optimiser's state has such keys.
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is a {type(key).__name__}")
            _check_keys(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_keys(each)


def _check_kind(name: str, tensor: Tensor) -> None:
    if not isinstance(name, str) or name == "__metadata__":
        raise TypeError(f"a tensor is called {name!r}; names are strings, and '__metadata__' is taken by the format")
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name!r} is a {type(tensor).__name__}, not a tensor; numbers belong in the description")
    if tensor.dtype not in _NAMES or tensor.layout != torch.strided or tensor.is_meta:
        kind = "a tensor without data (device meta)" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
        raise TypeError(f"{name!r} is {kind}; a file holds dense tensors of {', '.join(map(str, _NAMES))}")
    if tensor.ndim > 64:
        raise TypeError(f"{name!r} has {tensor.ndim} dimensions, a file holds tensors of up to 64")


def _on_host(name: str, tensor: Tensor) -> Tensor:
    _check_kind(name, tensor)
    return tensor.detach().cpu().contiguous()


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not a copy of them."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _order(entries: Mapping[str, _Entry]) -> list[str]:
    """Wide elements first, so that each tensor lies at a multiple of its element's size."""
    return sorted(entries, key=lambda name: (-DTYPES[entries[name].dtype].itemsize, name))


def _header(entries: Mapping[str, _Entry], text: str, digest: str) -> bytes:
    """The file up to the first tensor."""
    metadata = {
        "container": "fastlangevin 1",
        "sha256": digest,
        "description": text,
        "sha256:description": hashlib.sha256(text.encode()).hexdigest(),
    }
    placed: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name in _order(entries):
        entry = entries[name]
        start, end = end, end + entry.nbytes
        metadata[f"sha256:tensor:{name}"] = entry.sha256
        placed[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]}
    header = json.dumps(placed, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(_LENGTH, "little") + header


def _seal(header: bytes | bytearray) -> str:
    """SHA-256 of a header, its own digits taken as zeros."""
    digest = hashlib.sha256(header[: _DIGEST.start])
    digest.update(b"0" * 64)
    digest.update(header[_DIGEST.stop :])
    return digest.hexdigest()


def _kind(dtype: str, shape: list[int]) -> bytes:
    """The prefix of the digest of a tensor."""
    return f"{dtype} {shape} ".encode()


def _read(file: BufferedReader) -> tuple[dict[str, Tensor], dict[str, Any]]:
    size = os.fstat(file.fileno()).st_size
    frame = file.read(_LENGTH) or b""  # None of a file of /proc that would be waited for
    length = int.from_bytes(frame, "little")
    if len(frame) < _LENGTH or length > size - _LENGTH:
        raise ValueError("it ends before its header does")
    if length > MAX_HEADER:
        raise ValueError(f"its header claims {length} bytes, more than {MAX_HEADER}")
    header = frame + file.read(length)
    if not header.startswith(_BEGINNING, _LENGTH):
        raise ValueError("its header does not begin with the __metadata__ that this version of the package writes")
    if header[_DIGEST] != _seal(header).encode():
        raise ValueError("its header does not have the SHA-256 written with it")
    if _HEADER.fullmatch(header, _LENGTH) is None:
        raise ValueError("its header is not of the form that this package writes")
    try:
        entries, text = _parse(header)
        _check_room(length, len(text), len(entries))
        description = json.loads(text)
        rewritten = _header(entries, check_json("description", description), header[_DIGEST].decode())
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"its header makes no sense ({type(error).__name__}: {error})") from error
    # One comparison for all of it: description's digest, offsets, gaps, doubled and unknown keys, padding.
    if rewritten != header:
        raise ValueError("its header is not written as this package writes it")
    content = sum(entry.nbytes for entry in entries.values())
    if len(header) + content != size:
        raise ValueError(f"it has {size} bytes, its header speaks of {len(header) + content}")
    return {name: _tensor(file, name, entries[name]) for name in _order(entries)}, description


def _parse(header: bytes) -> tuple[dict[str, _Entry], str]:
    placed = json.loads(header[_LENGTH:])
    metadata = placed.pop("__metadata__")
    entries = {}
    for name, entry in placed.items():
        shape = entry["shape"]
        if any(type(extent) is not int or extent < 0 for extent in shape):
            raise ValueError(f"the shape of {name!r:.80} is {shape!s:.80}")
        entries[name] = _Entry(entry["dtype"], shape, metadata[f"sha256:tensor:{name}"])
    return entries, metadata["description"]


def _tensor(file: BufferedReader, name: str, entry: _Entry) -> Tensor:
    try:
        tensor = torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="cpu")
    except (RuntimeError, TypeError) as error:  # an empty tensor of impossible shape
        raise ValueError(f"the shape of its tensor {name!r} is {entry.shape}") from error
    memory = _memory(tensor)
    digest = hashlib.sha256(_kind(entry.dtype, entry.shape))
    for start in range(0, len(memory), CHUNK):
        part = memory[start : start + CHUNK]
        if file.readinto(part) != len(part):
            raise ValueError(f"it ends inside its tensor {name!r}")
        digest.update(part)
    if digest.hexdigest() != entry.sha256:
        raise ValueError(f"its tensor {name!r} does not have the SHA-256 written with it")
    return tensor
