"""The fingerprint of data that are files: of their names, sizes and bytes, without decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from fastlangevin.data.fingerprint import Fingerprint, digests
from fastlangevin.data.source import SampleError
from fastlangevin.storage.files import open_regular

__all__ = ["fingerprint_of_files"]

CHUNK = 2**20


def fingerprint_of_files(
    paths: Sequence[str], names: Sequence[str], options: dict[str, Any] | None = None
) -> Fingerprint:
    """Reads every file once, which costs less than an epoch: nothing is decoded.

    Args:
        paths: of the files, one a sample.
        names: what they are called wherever the data are.
        options: what else the samples are a function of, as JSON.

    Raises:
        SampleError: a file cannot be read.
    """

    def entries(first: int, stop: int) -> Iterator[bytes]:
        for index in range(first, stop):
            yield b"%s\0%d\0" % (os.fsencode(names[index]), _size(paths[index]))

    def content(first: int, stop: int) -> Iterator[bytes]:
        for path in paths[first:stop]:
            yield from _content(path)

    found: Fingerprint = {
        "samples": len(paths),
        "names": digests(len(paths), entries),
        "content": digests(len(paths), content),
    }
    return found if options is None else {**found, "options": options}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _content(path: str) -> Iterator[bytes]:
    try:
        with open_regular(path, bare=True) as file:
            while part := file.read(CHUNK):
                yield part
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> SampleError:
    return SampleError(f"cannot read {path}: {error.strerror or error}; put it back, or take it out of the data")
