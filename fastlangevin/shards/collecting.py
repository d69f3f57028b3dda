"""Reads the samples of a run in the order of their ids."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from fastlangevin.noise import integer
from fastlangevin.shards.digests import digest_of
from fastlangevin.shards.folder import RunFolder
from fastlangevin.shards.record import dtype_of
from fastlangevin.storage.container import DamagedError
from fastlangevin.storage.files import size_of_regular

__all__ = ["collect", "digest", "iterate"]


def iterate(folder: str | os.PathLike[str]) -> Iterator[Tensor]:
    """The samples of a run, shard by shard, of which one is in memory at a time; every byte is checked.

    Args:
        folder: of the run.

    Yields:
        ``(shard_size, ...)`` on the CPU, the last one perhaps shorter.

    Raises:
        FileNotFoundError: there is no run in the folder, or shards are missing.
        DamagedError: a ``ValueError``: a file is damaged.
    """
    run = RunFolder(folder)
    _check_complete(run, run.count)
    return map(run.read, range(run.count))


def collect(folder: str | os.PathLike[str], count: int | None = None) -> Tensor:
    """The samples of a run as one tensor.

    Args:
        folder: of the run.
        count: only the first ones, whose shards must be there; all by default.

    Returns:
        ``(N, ...)`` on the CPU, in the order of their ids.

    Raises:
        FileNotFoundError: there is no run in the folder, or shards are missing.
        DamagedError: a ``ValueError``: a file is damaged.
    """
    run = RunFolder(folder)
    wanted = run.n if count is None else integer("count", count, 1, run.n)
    shards = -(-wanted // run.size)
    _check_complete(run, shards)
    _check_sizes(run, shards)
    samples = torch.empty((wanted, *run.record["shape"]), dtype=dtype_of(run.record), device="cpu")
    for index in range(shards):
        start = run.shard(index).start
        part = samples[start : start + run.size]
        part.copy_(run.read(index)[: len(part)])
    return samples


def digest(folder: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a run's samples in the order of their ids; equal to ``digest_of(collect(folder))``.

    It depends neither on the size of the shards nor on who drew them.

    Args:
        folder: of the run.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: there is no run in the folder, or shards are missing.
        DamagedError: a ``ValueError``: a file is damaged.
    """
    return digest_of(iterate(folder))


def _check_complete(run: RunFolder, shards: int) -> None:
    there = {index for index in run.finished() if index < shards}
    if len(there) < shards:
        # Of a record made up by hand even a list of all numbers might not fit into memory.
        first = run.shard(next(index for index in range(shards) if index not in there))
        raise FileNotFoundError(
            f"{run.path} misses {shards - len(there)} of {shards} shards, the first is "
            f"{run.shard_path(first.index).name} "
            f"(samples {first.first} to {first.first + first.count - 1}); run the same again, which draws only what is "
            "missing"
        )


def _check_sizes(run: RunFolder, shards: int) -> None:
    """Raises where a file is too short for its samples: before memory is taken for what the record claims."""
    sample = math.prod(run.record["shape"]) * dtype_of(run.record).itemsize
    for index in range(shards):
        path = run.shard_path(index)
        if size_of_regular(path) < run.shard(index).count * sample:
            raise DamagedError(path, f"it is shorter than the {run.shard(index).count} samples that it is to hold")
