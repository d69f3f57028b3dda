"""The order of training: the epochs in a row, each in an order of its own, cut into batches.

The order of an epoch is addressed by (seed, epoch), so what a step sees is a function of the step: a resumed run needs
no other state. A sample's place in the batch of a step, 0 .. batch - 1, is its sample id for everything random about it
in that step; processes and micro-batches own contiguous slices of the places:

    places of micro-batch m of rank r = [r batch/world + m batch/(world micro), ... + batch/(world micro))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from fastlangevin import ops
from fastlangevin.noise import MAX_DRAW, MAX_SAMPLE_ID, MAX_SEED, Purpose, Seed, integer

__all__ = ["AddressedBatches", "batch_indices", "permutation"]


class AddressedBatches(Sampler[list[int]]):
    """The batches of one process, for ``DataLoader(batch_sampler=...)``: for each step, for each micro-batch, indices.

    Over all ranks and micro-batches they are :func:`batch_indices` of the step, each entry once. A step costs O(batch):
    the order of an epoch, O(size log size), is found once.

    Args:
        size: samples in the source.
        batch: samples in a step, over all processes and micro-batches.
        stop: the step before which to end.
        start: the first step; what follows is what an uninterrupted run has there.
        seed: 64-bit seed of the run.
        rank, world: which process this is, and of how many.
        micro: micro-batches of a step, for the accumulation of gradients.

    Raises:
        ValueError: an argument is out of range, the batch is not divisible, or there are more than 2^32 epochs.
    """

    def __init__(
        self,
        size: int,
        *,
        batch: int,
        stop: int,
        start: int = 0,
        seed: int,
        rank: int = 0,
        world: int = 1,
        micro: int = 1,
    ) -> None:
        self.size = integer("size", size, 1, MAX_SAMPLE_ID)
        self.batch = integer("batch", batch, 1, 2**31)
        self.stop = integer("stop", stop, 0, 2**56)
        self.start = integer("start", start, 0, self.stop)
        self.seed = integer("seed", seed, 0, MAX_SEED)
        self.world = integer("world", world, 1, 2**31)
        self.rank = integer("rank", rank, 0, self.world - 1)
        self.micro = integer("micro", micro, 1, 2**31)
        parts = self.world * self.micro
        if self.batch % parts:
            raise ValueError(
                f"batch must be a multiple of world * micro = {self.world} * {self.micro}, so that every process has "
                f"as many samples, got {self.batch}; {-(-self.batch // parts) * parts} is the next"
            )
        _check_epochs(self.stop * self.batch - 1, self.size)
        self._epoch: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return (self.stop - self.start) * self.micro

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            for index in range(self.micro):
                yield self.indices(step, index).tolist()

    def positions(self, index: int) -> range:
        """The places in a step's batch that micro-batch ``index`` of this process has: the sample ids of its noise."""
        length = self.batch // (self.world * self.micro)
        first = (self.rank * self.micro + integer("index", index, 0, self.micro - 1)) * length
        return range(first, first + length)

    def indices(self, step: int, index: int) -> Tensor:
        """The dataset indices of micro-batch ``index`` of a step, int64 ``(batch / (world * micro),)``."""
        places = self.positions(index)
        first = step * self.batch
        return _concatenated(first + places.start, first + places.stop, self.size, self._order)

    def _order(self, epoch: int) -> Tensor:
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, permutation(self.size, seed=self.seed, draw=epoch)
        return self._epoch[1]


def batch_indices(step: int, batch: int, size: int, *, seed: Seed) -> Tensor:
    """Returns which samples a training step sees: the epochs in a row, each in an order of its own, cut into batches.

    Args:
        step: training step from 0.
        batch: samples in a step.
        size: samples in the set.
        seed: 64-bit seed of the run.

    Returns:
        int64 ``(batch,)``. A function of the arguments alone: a resumed run needs no other state.
    """
    size, batch = integer("size", size, 1, MAX_SAMPLE_ID), integer("batch", batch, 1, 2**31)
    first = integer("step", step, 0, 2**56) * batch
    return _concatenated(first, first + batch, size, lambda epoch: permutation(size, seed=seed, draw=epoch))


def permutation(size: int, *, seed: Seed, draw: int) -> Tensor:
    """A random order of 0 .. size - 1 by address, int64 ``(size,)`` on the CPU."""
    # The keys have 2^23 values, so equal ones do occur: the sort must be stable.
    keys = ops.rand((size, 1), seed=seed, draw=draw, purpose=Purpose.DATA_ORDER, device="cpu")
    return torch.argsort(keys[:, 0], stable=True)


def _concatenated(first: int, stop: int, size: int, order: Callable[[int], Tensor]) -> Tensor:
    """Entries [first, stop) of the epochs in a row."""
    _check_epochs(stop - 1, size)
    parts = []
    for epoch in range(first // size, (stop - 1) // size + 1):
        begin = epoch * size
        parts.append(order(epoch)[max(first - begin, 0) : min(stop - begin, size)])
    return torch.cat(parts)


def _check_epochs(last: int, size: int) -> None:
    if last // size > MAX_DRAW:
        raise ValueError(
            f"the run goes on to epoch {last // size}, and the address of the data's order has room for {MAX_DRAW}; "
            "take fewer steps or a smaller batch"
        )
