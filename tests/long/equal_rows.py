"""Finds equal rows among hundreds of millions of blocks, in bounded memory.

Rows of 192 bits are hashed to 64 and sorted into files by their first bits; each file is sorted alone. A hash that
occurs once proves that its row does. For one that does not, the rows themselves are made again and compared, so that
what is reported is exact; among 10^8 different rows 3e-4 pairs of hashes are expected to be equal by chance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.long.blocks import Draw, Words

Hashes = NDArray[np.uint64]

BUCKETS = 64
CHUNK = 2**22  # rows that are hashed and sorted together: 130 MB
EXAMPLES = 3


class Repeats(NamedTuple):
    """What was found.

    Attributes:
        rows: how many rows there are.
        repeated: how many of them are equal to one before them.
        examples: a few of those, in words.
        redrawn: rows of redraws.
        strangers: how many of them were never drawn, by their hashes.
    """

    rows: int
    repeated: int
    examples: list[str]
    redrawn: int
    strangers: int


def hashes(rows: Words) -> Hashes:
    """64 bits of each row ``(N, 6)``."""
    value = np.zeros(len(rows), dtype=np.uint64)
    for part in np.ascontiguousarray(rows).view(np.uint64).T:
        value ^= part
        for multiplier, shift in ((0xBF58476D1CE4E5B9, 32), (0x94D049BB133111EB, 29)):
            value *= np.uint64(multiplier)
            value ^= value >> np.uint64(shift)
    return value


def find(draws: Sequence[Draw], redraws: Sequence[Draw] = ()) -> Repeats:
    """Looks for a block that occurs twice among ``draws``, and for one of ``redraws`` that is not among them."""
    with tempfile.TemporaryDirectory(prefix="blocks-") as name:
        first, second = Path(name) / "draws", Path(name) / "redraws"
        rows, redrawn = _distribute(draws, first), _distribute(redraws, second)
        suspects, strangers = [], 0
        for bucket in range(BUCKETS):
            drawn = _sorted(first, bucket)
            equal = drawn[1:] == drawn[:-1]
            suspects.append(np.unique(drawn[1:][equal]))
            again = _sorted(second, bucket)
            if len(again):
                place = np.searchsorted(drawn, again).clip(max=max(len(drawn) - 1, 0))
                strangers += int((drawn[place] != again).sum()) if len(drawn) else len(again)
    repeated, examples = _compare(draws, np.concatenate(suspects))
    return Repeats(rows, repeated, examples, redrawn, strangers)


def _distribute(draws: Iterable[Draw], folder: Path) -> int:
    """Hashes of all rows into the files of a folder, by their first bits; returns how many rows there were."""
    folder.mkdir()
    bounds = np.arange(1, BUCKETS, dtype=np.uint64) * np.uint64(2**64 // BUCKETS)
    files = [(folder / str(bucket)).open("ab") for bucket in range(BUCKETS)]
    count = 0
    try:
        for chunk in _chunks(draws):
            chunk.sort()
            count += len(chunk)
            for file, part in zip(files, np.split(chunk, np.searchsorted(chunk, bounds)), strict=True):
                part.tofile(file)
    finally:
        for file in files:
            file.close()
    return count


def _chunks(draws: Iterable[Draw]) -> Iterator[Hashes]:
    waiting: list[Hashes] = []
    rows = 0
    for draw in draws:
        waiting.append(hashes(draw.words()))
        rows += len(draw)
        if rows >= CHUNK:
            yield np.concatenate(waiting)
            waiting, rows = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _sorted(folder: Path, bucket: int) -> Hashes:
    values = np.fromfile(folder / str(bucket), dtype=np.uint64)
    values.sort()
    return values


def _compare(draws: Sequence[Draw], suspects: Hashes) -> tuple[int, list[str]]:
    """The rows of suspected hashes themselves: how many equal one before them, and some in words."""
    if not len(suspects):
        return 0, []
    suspects = np.sort(suspects)
    seen: dict[bytes, str] = {}
    repeated = 0
    examples: list[str] = []
    for draw in draws:
        rows = draw.words()
        values = hashes(rows)
        place = np.searchsorted(suspects, values).clip(max=len(suspects) - 1)
        for row in rows[suspects[place] == values]:
            key, where = row.tobytes(), f"{draw.part} (purpose {draw.purpose}, draw {draw.number})"
            if key in seen:
                repeated += 1
                if len(examples) < EXAMPLES and all(seen[key] not in each for each in examples):
                    examples.append(f"block {row[:4].tolist()} of key {row[4:].tolist()}: {seen[key]} and {where}")
            else:
                seen[key] = where
    return repeated, examples
