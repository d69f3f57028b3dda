"""The addresses of a run's noise, and the update that draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastlangevin.noise import (
    MAX_SAMPLE_ID,
    MAX_SEED,
    Generators,
    Seed,
    integer,
    resolve_sample_ids,
    resolve_seed,
)
from fastlangevin.ops import step
from fastlangevin.ops.arguments import Coefficient

__all__ = ["AddressedNoise"]


class AddressedNoise:
    """Where the noise of a chain stands: each call takes the next draw number, from 0.

    A predictor and a corrector of one chain share one of these, or they would draw the same noise twice.

    Args:
        seed: 0 to 2^64 - 1, or an int64 tensor ``(B,)`` of one for each sample, by their bits.
        generator: a ``torch.Generator`` that a seed is drawn from, or one for each sample. With neither, the seed comes
            from PyTorch's default CPU generator, at the first draw.
        sample_ids: ``B`` global ids; by default ``sample_offset`` and up.
        sample_offset: id of the first sample.
    """

    def __init__(
        self,
        *,
        seed: Seed | None = None,
        generator: Generators | None = None,
        sample_ids: Tensor | Sequence[int] | None = None,
        sample_offset: int = 0,
    ) -> None:
        if seed is not None and generator is not None:
            raise ValueError("give seed= or generator=, not both")
        if isinstance(seed, Tensor) and seed.dtype != torch.int64:
            raise ValueError(f"seed as a tensor must be int64, got {seed.dtype}")
        self.seed = seed if seed is None or isinstance(seed, Tensor) else integer("seed", seed, 0, MAX_SEED)
        self.generator = generator
        self.sample_ids, self.sample_offset = sample_ids, integer("sample_offset", sample_offset, 0, MAX_SAMPLE_ID)
        self.draws = 0
        # Where the updates of a sampler record results that are not finite, as fault= of fastlangevin.step.
        self.fault: Tensor | None = None

    def samples(self, batch: int, device: torch.device) -> dict[str, Any]:
        """Seed and samples, as ``fastlangevin.randn`` takes them."""
        if self.sample_ids is not None:
            self.sample_ids, self.sample_offset = resolve_sample_ids(self.sample_ids, self.sample_offset, batch, device)
        if self.seed is None:
            self.seed, self.generator = resolve_seed(None, self.generator, batch, device), None
        return {"seed": self.seed, "sample_ids": self.sample_ids, "sample_offset": self.sample_offset}

    def address(self, x: Tensor) -> dict[str, Any]:
        """The next draw for the samples of a state ``(B, ...)``, as ``fastlangevin.step`` takes it."""
        place = {**self.samples(x.shape[0], x.device), "draw": self.draws}
        self.draws += 1
        return place


def update(
    x: Tensor,
    score: Tensor,
    c: Coefficient,
    a: Coefficient,
    b: Coefficient | None,
    *,
    mean: bool = True,
    fault: Tensor | None = None,
    **noise: Any,
) -> tuple[Tensor, Tensor]:
    """The new state, and its mean before the noise: the same tensor where there is none, or no ``mean`` is wanted.

    ``fault`` records whether both are finite.
    """
    if b is None:
        new = step(x, score, a=a, b=None, c=c, fault=fault)
        return new, new
    new = step(x, score, a=a, b=b, c=c, fault=fault, **noise)
    return new, step(x, score, a=a, b=None, c=c, fault=fault) if mean else new
