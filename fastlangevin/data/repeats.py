"""Tries whether samples are the same each time they are read, as runs need them that are repeated or resumed."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from fastlangevin.data.fingerprint import spread

__all__ = ["changed", "check_repeats", "checksum", "raw_bytes"]

# Items that are tried, and readings of all together; each is read four times at least.
ITEMS, READINGS, LEAST = 128, 512, 4


def raw_bytes(x: Tensor) -> memoryview:
    """The bytes of a tensor's elements in logical order, on the host."""
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def checksum(x: Tensor) -> int:
    """32 bits of a tensor's shape, dtype and elements."""
    return zlib.crc32(raw_bytes(x), zlib.crc32(f"{tuple(x.shape)} {x.dtype}".encode()))


def check_repeats(read: Callable[[int], Tensor], count: int, name: str) -> None:
    """Reads some samples again and again, forwards and backwards, and raises ValueError if one has changed.

    All of up to 128 samples are read, of more a spread of 128. A flip with probability 1/2 of each goes unnoticed with
    probability 2^-384 or less; one of a single sample among 128, with 1/8. What is rarer is found as it comes up, by
    sources that compare each reading with the first.

    Args:
        read: gives the sample of an index.
        count: number of samples.
        name: of the data.
    """
    chosen = spread(count, ITEMS)
    first = [checksum(read(index)) for index in chosen]
    for again in range(max(LEAST, READINGS // len(chosen)) - 1):
        for place in range(len(chosen))[:: 1 if again % 2 else -1]:
            if checksum(read(chosen[place])) != first[place]:
                raise ValueError(changed(chosen[place], name))


def changed(index: int, name: str) -> str:
    """The message of an item that is not what it was."""
    return (
        f"dataset gives another item {index} each time it is read; a sample's randomness must come from its address, "
        f"or runs cannot be repeated or resumed: leave random transforms out of {name} and use Augment"
    )
