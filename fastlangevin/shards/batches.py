"""Draws consecutive samples in batches that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastlangevin.ladders import Sigmas
from fastlangevin.samplers import NonFiniteError, StepInfo, annealed_langevin
from fastlangevin.scores import ScoreFunction

__all__ = ["Batches"]

logger = logging.getLogger("fastlangevin")

# What PyTorch's allocator of the CPU, Python's and cuBLAS say; that of CUDA has a type of its own.
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "cublas_status_alloc_failed")


class Batches:
    """Draws samples of one run; after running out of memory, in smaller batches, with the same bits.

    Args:
        score, sigmas: as for :func:`fastlangevin.annealed_langevin`.
        shape: of one sample.
        steps: updates in a chain.
        batch: samples in a batch, at most.
        stop: asked after every update; True ends the chain, whose batch is lost.
        options: the other arguments of :func:`fastlangevin.annealed_langevin`.

    Attributes:
        batch: samples in a batch, as many as have fitted.
        drawn: samples drawn.
        evaluations: calls of the score function in the batches that were drawn.
    """

    def __init__(
        self,
        score: ScoreFunction,
        sigmas: Sigmas,
        *,
        shape: Sequence[int],
        steps: int,
        batch: int,
        stop: Callable[[], bool],
        options: Mapping[str, Any],
    ) -> None:
        self.score, self.sigmas, self.options = score, sigmas, options
        self.shape, self.steps = shape, steps
        self.stop = stop
        self.batch = batch
        self.drawn = 0
        self.evaluations = 0

    def draw(self, first: int, most: int) -> Tensor | None:
        """The next samples on the CPU, at most this many, from an id on; None where ``stop`` ended them.

        Raises:
            RuntimeError: a single sample does not fit into memory, or a sample is not finite.
        """
        while True:
            count = min(self.batch, most)
            try:
                return self._draw(first, count)
            except (MemoryError, RuntimeError) as error:
                if not _ran_out(error):
                    raise
                if count == 1:
                    raise RuntimeError(
                        f"a batch of one sample, {tuple(self.shape)}, does not fit into memory: {error}; free some, "
                        "take a device with more, or a smaller network"
                    ) from error
            # Outside the handler, where the traceback and the tensors it held are gone.
            self.batch = count // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            logger.warning("out of memory with a batch of %d; going on with %d", count, self.batch)

    def _draw(self, first: int, count: int) -> Tensor | None:
        def after_step(info: StepInfo) -> bool:
            return self.stop()

        try:
            result = annealed_langevin(
                self.score,
                self.sigmas,
                shape=(count, *self.shape),
                sample_offset=first,
                callback=after_step,
                full_output=True,
                **self.options,
            )
        except NonFiniteError as error:
            raise RuntimeError(
                f"{len(error.faults)} of {count} samples are not finite, the first is sample "
                f"{error.faults[0].sample_id}: the chain diverged, take a smaller step size; they were not written"
            ) from error
        if result.state.step < self.steps:
            return None
        samples = result.samples.cpu()
        self.drawn += count
        self.evaluations += result.evaluations
        return samples


def _ran_out(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return any(each in said for each in _NO_MEMORY)
