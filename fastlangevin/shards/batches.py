"""Draws consecutive samples in batches that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fastlangevin.samplers import NonFiniteError, StepInfo, annealed_langevin
from fastlangevin.scores import ScoreFunction
from fastlangevin.shards.record import dtype_of

__all__ = ["Batches"]

logger = logging.getLogger("fastlangevin")

# What PyTorch's allocator of the CPU, Python's and cuBLAS say; that of CUDA has a type of its own.
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "cublas_status_alloc_failed")


class Batches:
    """Draws samples of one run; after running out of memory, in smaller batches, with the same bits.

    Args:
        score, device, impl, strict_ladder: as for :func:`fastlangevin.annealed_langevin`.
        record: what the run is.
        batch: samples in a batch, at most.
        stop: asked after every update; True ends the chain, whose batch is lost.

    Attributes:
        batch: samples in a batch, as many as have fitted.
        drawn: samples drawn.
        evaluations: calls of the score function in the batches that were drawn.
    """

    def __init__(
        self,
        score: ScoreFunction,
        record: Mapping[str, Any],
        *,
        batch: int,
        stop: Callable[[], bool],
        device: torch.device,
        impl: str,
        strict_ladder: bool,
    ) -> None:
        self.score, self.record, self.stop = score, record, stop
        self.shape = record["shape"]
        self.device, self.impl, self.strict_ladder = device, impl, strict_ladder
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

        record = self.record
        try:
            result = annealed_langevin(
                self.score,
                record["sigmas"],
                init=record["init"],
                epsilon=record["epsilon"],
                steps_per_level=record["steps_per_level"],
                corrector=record["corrector"],
                denoise=record["denoise"],
                shape=(count, *self.shape),
                dtype=dtype_of(record),
                seed=record["seed"],
                sample_offset=first,
                device=self.device,
                impl=self.impl,
                strict_ladder=self.strict_ladder,
                callback=after_step,
                full_output=True,
            )
        except NonFiniteError as error:
            raise RuntimeError(
                f"{len(error.faults)} of {count} samples are not finite, the first is sample "
                f"{error.faults[0].sample_id}: the chain diverged, take a smaller step size; they were not written"
            ) from error
        if result.state.step < len(record["sigmas"]) * record["steps_per_level"]:
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
