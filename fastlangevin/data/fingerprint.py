"""Fingerprints of data, by which a run that goes on sees whether its data are those that it was begun with.

A fingerprint is a row of digests, one for each block of consecutive samples. The first 256 blocks are single samples,
later ones grow by an eighth, and no block depends on the number of samples: so two fingerprints show where data begin
to differ, whatever their sizes, and that of a million samples has some 330 digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypedDict

__all__ = ["Fingerprint", "blocks", "difference", "digests", "spread"]

SINGLE, GROWTH = 256, 8
DIGITS = 16


class Fingerprint(TypedDict, total=False):
    """As JSON.

    Attributes:
        samples: how many of the samples were read, all or a spread of them.
        names: digests of the names and sizes of files.
        content: digests of what the samples are, or of their files.
        options: what else the samples are a function of.
    """

    samples: int
    names: str
    content: str
    options: dict[str, Any]


def blocks(count: int) -> Iterator[range]:
    """Consecutive blocks of ``range(count)``."""
    first = 0
    while first < count:
        stop = first + (1 if first < SINGLE else first // GROWTH)
        yield range(first, min(stop, count))
        first = stop


def digests(count: int, content: Callable[[int, int], Iterable[bytes | memoryview]]) -> str:
    """The digests of the blocks of ``count`` samples, in hexadecimal, one after another.

    Args:
        count: number of samples.
        content: the bytes of samples ``[first, stop)``, in parts.
    """
    row = []
    for block in blocks(count):
        digest = hashlib.sha256()
        for part in content(block.start, block.stop):
            digest.update(part)
        row.append(digest.hexdigest()[:DIGITS])
    return "".join(row)


def spread(count: int, most: int) -> list[int]:
    """Up to ``most`` of the numbers 0 .. count - 1, evenly spread."""
    read = min(count, most)
    return [index * count // read for index in range(read)]


def difference(
    saved: object, wanted: Mapping[str, Any], count: int, label: Callable[[int], str], same_count: bool
) -> str | None:
    """Says what a saved run's data have that is not in the data at hand; None if they are the same.

    Args:
        saved: as a file gave it.
        wanted: of the data at hand.
        count: number of samples at hand.
        label: names one of them by its index.
        same_count: whether there were as many before.
    """
    if saved == wanted:
        return None
    if not isinstance(saved, dict) or saved.get("options") != wanted.get("options"):
        was = saved.get("options") if isinstance(saved, dict) else saved
        return f"options {was!r} where this one has {wanted.get('options')!r}"
    for part, what in (("names", "name or size"), ("content", "content")):
        before, after = saved.get(part), wanted.get(part)
        if before == after:
            continue
        if not isinstance(before, str) or not isinstance(after, str):
            return f"{part} of another kind"
        read = wanted["samples"]
        if not same_count and read < count:
            return f"another {what}"
        place = spread(count, read)
        here, was, now = list(blocks(read)), _split(before), _split(after)
        for block, one, other in zip(here, was, now, strict=False):
            if one != other:
                first, last = label(place[block.start]), label(place[block.stop - 1])
                return f"another {what}, first in {first if first == last else f'one of {first} to {last}'}"
        if len(was) < len(now):
            return f"no {label(place[here[len(was)].start])}"
        return f"more after {label(place[-1])}"
    return f"a fingerprint of {saved.get('samples')!r} samples where this one has one of {wanted['samples']}"


def _split(row: str) -> list[str]:
    return [row[first : first + DIGITS] for first in range(0, len(row), DIGITS)]
