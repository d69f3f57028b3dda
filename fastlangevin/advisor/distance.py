"""The largest noise level that data need: Technique 1 of Song and Ermon (2020).

sigma_1 is the largest Euclidean distance between two samples of the data, so that chains can go from any to any.

Of N samples not all N (N - 1)/2 pairs are compared. With r_i the distance of sample i from their mean, no pair is
farther apart than r_i + r_j: pairs that cannot exceed the largest distance known so far are left out, in blocks, by
descending r. Where data have outliers, as images do, few are left and the work is O(N D); where all r are alike, as for
Gaussian noise, it is O(N^2 D) after all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin.noise import MAX_DRAW, MAX_SAMPLE_ID, MAX_SEED, integer

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from fastlangevin.data.source import Source

__all__ = ["MEMORY", "largest_distance"]

MEMORY = 2**30
# An epoch that no training comes to, so that which samples are looked at has no part in the order of any run.
SUBSAMPLE_DRAW = MAX_DRAW - 1
SWEEPS = 3
# Elements read at once: more is not faster.
CHUNK = 2**21
ROWS, COLUMNS = 4096, 512
# Bytes for an element while samples are read: as the source has them, twice where it stacks them, and fp64.
READING = 16
# Bytes for a sample: orders and radii, with what sorting them takes.
ORDERING = 64


def largest_distance(
    dataset: Dataset[Any] | Tensor,
    *,
    subsample: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> float:
    """The largest Euclidean distance between two samples: sigma_1 by Technique 1 of Song and Ermon (2020).

    Distances are made in fp64 of samples less their mean, and the one that is returned of the two samples themselves:
    its relative error is D 2^-50 at the most, wherever the data lie. All pairs are accounted for, unless ``subsample``
    is given.

    Args:
        dataset: a tensor ``(N, *)``, floating or uint8, read as v / 255; a map-style dataset whose items are tensors,
            or tuples that begin with one; or a :class:`fastlangevin.data.Source`.
        subsample: look at this many samples only, drawn without replacement; all where there are no more. Gives a lower
            bound, which more of the same seed never lower.
        seed: 0 to 2^64 - 1, of the subsample.
        memory: bytes to use beside the data; a small number costs time. Of a dataset that is not in memory, samples
            are read several times unless half of it holds them all.
        device: where distances are computed, in fp64; by default where the data are.
        progress: show a progress bar.

    Returns:
        The distance, in units of the data; 0.0 where all samples are equal.

    Raises:
        TypeError: it is no dataset of tensors.
        ValueError: there are fewer than two samples, one is not finite, or ``memory`` is too small for two samples.
    """
    from fastlangevin.data.order import (
        permutation,
    )  # with fastlangevin.data comes Pillow, which an import must not load
    from fastlangevin.data.source import Images, as_source

    wanted = MAX_SAMPLE_ID if subsample is None else integer("subsample", subsample, 2, MAX_SAMPLE_ID)
    seed = integer("seed", seed, 0, MAX_SEED)
    memory = integer("memory", memory, 1, 2**62)
    source = as_source(dataset)
    total = len(source)
    if total < 2:
        raise ValueError(f"dataset must have at least two samples, or there is no distance between them, got {total}")
    chosen = None
    if wanted < total:
        chosen = permutation(total, seed=seed, draw=SUBSAMPLE_DRAW)[:wanted].sort().values
    # Without fp32 on the way: what a tensor in fp64 has beyond it may be all that its samples differ by.
    values = source.images if isinstance(source, Images) else None
    rows = _Rows(source, values, chosen, memory, device)
    with torch.no_grad():
        return _Search(rows, progress).largest()


class _Rows:
    """The chosen samples of a source as rows of fp64, in blocks that keep within the memory given."""

    def __init__(
        self,
        source: Source,
        values: Tensor | None,
        chosen: Tensor | None,
        memory: int,
        device: torch.device | str | None,
    ) -> None:
        self.source, self.chosen = source, chosen
        self.count = len(source) if chosen is None else len(chosen)
        self.size = math.prod(source.shape)
        self.device = source.device if device is None else torch.empty(0, dtype=torch.float64, device=device).device
        self.values = values
        # What is left for blocks, beside the mean, a sum and two samples that are compared.
        fixed = ORDERING * len(source) + 4 * READING * self.size
        self.memory = memory - fixed
        least = 2 * READING * self.size + 16
        if self.memory < least:
            raise ValueError(
                f"memory must hold at least two samples of {self.size} elements and the order of {len(source)}: "
                f"{fixed + least} bytes, got {memory}"
            )
        self.kept = False

    def keep(self, bar: Any) -> None:
        """Holds the samples from now on, where they are not in memory and half of it has room for them."""
        if self.values is not None or 2 * 4 * self.count * self.size > self.memory:
            return
        values = torch.empty((self.count, self.size), dtype=torch.float32, device=self.source.device)
        for places in self.chunks():
            values[places] = self.source.take(self.indices(places)).flatten(1)
            bar.update(len(places))
        self.values, self.kept = values, True
        self.memory -= values.nbytes

    def indices(self, places: Tensor) -> Tensor:
        """The numbers in the source that samples have, by their places among the chosen."""
        return places if self.chosen is None else self.chosen[places]

    def take(self, places: Tensor) -> Tensor:
        """Samples by their places among the chosen, fp64 ``(m, D)`` in memory of their own."""
        indices = places if self.kept else self.indices(places)
        if self.values is None:
            return self.source.take(indices).flatten(1).to(self.device, torch.float64)
        values = self.values[indices.to(self.values.device)].flatten(1)
        rows = values.to(self.device, torch.float64)
        return rows.div_(255) if values.dtype == torch.uint8 else rows

    def chunks(self) -> Iterator[Tensor]:
        """The places of all samples, in order, as many at once as are worth it."""
        length = max(1, min(CHUNK // self.size, self.memory // (READING * self.size)))
        for first in range(0, self.count, length):
            yield torch.arange(first, min(first + length, self.count), dtype=torch.int64, device="cpu")

    def blocks(self) -> tuple[int, int]:
        """Returns how many rows to hold, and how many columns to compare them with at once."""
        columns = max(1, min(COLUMNS, self.memory // (4 * READING * self.size)))
        left = self.memory - READING * self.size * columns
        height = left // (READING * self.size + 16 * columns)
        # What is not in memory is read anew for every block of rows, so that they cannot be high enough.
        return (height if self.values is None else min(height, ROWS)), columns


class _Search:
    """The search for the largest distance: a first guess, then all pairs that could exceed it."""

    def __init__(self, rows: _Rows, progress: bool) -> None:
        self.rows, self.progress = rows, progress
        self.best = 0.0

    def largest(self) -> float:
        with self._bar("reading", (2 + SWEEPS) * self.rows.count) as bar:
            self.rows.keep(bar)
            self.centre = self._mean(bar)
            radii = self._distances(self.centre, bar)
            if not math.isfinite(float(radii.max())):
                raise ValueError("dataset has values so large that squared distances overflow; scale them")
            self._guess(int(radii.argmax()), bar)
            bar.total = bar.n
        if self.best:
            radii, order = radii.sort(descending=True, stable=True)
            self._compare(radii, order)
        return self.best

    def _bar(self, name: str, total: int) -> Any:
        return tqdm(total=total, disable=not self.progress, desc=name, unit=" samples", unit_scale=True)

    def _mean(self, bar: Any) -> Tensor:
        from fastlangevin.data.source import check_finite

        total = torch.zeros(self.rows.size, dtype=torch.float64, device=self.rows.device)
        for places in self.rows.chunks():
            rows = self.rows.take(places)
            total += rows.sum(0)
            if not bool(total.isfinite().all()):
                for index, row in zip(self.rows.indices(places).tolist(), rows, strict=True):
                    check_finite(index, row, self.rows.source.name)
                raise ValueError("dataset has values so large that their sum overflows; scale them")
            bar.update(len(places))
        return total.div_(self.rows.count)

    def _distances(self, point: Tensor, bar: Any) -> Tensor:
        """Of every sample from a point, fp64 ``(N,)`` on the CPU."""
        distances = torch.empty(self.rows.count, dtype=torch.float64, device="cpu")
        for places in self.rows.chunks():
            distances[places] = torch.linalg.vector_norm(self.rows.take(places).sub_(point), dim=1).cpu()
            bar.update(len(places))
        return distances

    def _guess(self, farthest: int, bar: Any) -> None:
        """Goes from the outermost sample to the one farthest from it, and on while the distance grows."""
        for _ in range(SWEEPS):
            distances = self._distances(
                self.rows.take(torch.tensor([farthest], dtype=torch.int64, device="cpu"))[0], bar
            )
            farthest = int(distances.argmax())
            if not distances[farthest] > self.best:
                return
            self.best = float(distances[farthest])

    def _compare(self, radii: Tensor, order: Tensor) -> None:
        """All pairs that could be farther apart than the best one, in blocks by descending r."""
        height, width = self.rows.blocks()
        squares = radii.square().to(self.rows.device)
        with self._bar("comparing", 0) as bar:
            for top in range(0, len(radii), height):
                if self._reaching(radii, top) <= top:
                    break
                bar.total = bar.n + self._columns_left(radii, top, height)
                rows = self._centred(order[top : top + height])
                for left in range(top, len(radii), width):
                    # Rows that can reach the first of these columns, and none below the diagonal.
                    used = min(self._reaching(radii, left) - top, left + width - top, len(rows))
                    if used <= 0:
                        break
                    columns = self._centred(order[left : left + width])
                    found = torch.mm(rows[:used], columns.T).mul_(-2)
                    found += squares[top : top + used, None]
                    found += squares[left : left + width]
                    value, place = found.flatten().max(0)
                    if float(value) > self.best**2:
                        row, column = divmod(int(place), len(columns))
                        self._measure(order[top + row], order[left + column])
                    bar.update(len(columns))
                    del columns, found
                del rows
            bar.total = bar.n

    def _reaching(self, radii: Tensor, place: int) -> int:
        """Counts the samples, from the outermost on, that could be farther from one sample than the best distance."""
        # Rounding must not send pairs of equal distance, as those of two clusters, through the comparison.
        reach = self.best * (1 + self.rows.size * 2.0**-51) - float(radii[place])
        return int(torch.searchsorted(-radii, -reach))

    def _columns_left(self, radii: Tensor, top: int, height: int) -> int:
        count = self._reaching(radii, 0)
        return sum(max(0, count - first) for first in range(top, len(radii), height))

    def _centred(self, places: Tensor) -> Tensor:
        return self.rows.take(places).sub_(self.centre)

    def _measure(self, one: Tensor, other: Tensor) -> None:
        pair = self.rows.take(torch.stack([one, other]))
        self.best = max(self.best, float(torch.linalg.vector_norm(pair[0] - pair[1])))
