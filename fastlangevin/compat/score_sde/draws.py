"""The addresses of a run's noise, and the update that draws it."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fastlangevin.compat.addresses import samples_of
from fastlangevin.kernels.address import Coefficient, Term, Update
from fastlangevin.noise import (
    MAX_SAMPLE_ID,
    MAX_SEED,
    Address,
    Purpose,
    SampleOptions,
    check_samples,
    integer,
    one_source,
    resolve,
)
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.move import move
from fastlangevin.ops.random import random_at
from fastlangevin.ops.sample_norms import NO_ADDRESS

__all__ = ["AddressedNoise"]


class AddressedNoise:
    """The noise of a chain: each call takes the next draw number, from 0.

    A predictor and a corrector of one chain share one of these, or they would draw the same noise twice.

    Args:
        samples: the seed and the samples' ids, :class:`fastlangevin.noise.SampleOptions`. A seed from a generator is
            taken at the first draw.
    """

    def __init__(self, **samples: Unpack[SampleOptions]) -> None:
        check_samples(samples)
        seed = samples.get("seed")
        one_source(seed, samples.get("generator"))
        if isinstance(seed, Tensor) and seed.dtype != torch.int64:
            raise ValueError(f"seed as a tensor must be int64, got {seed.dtype}")
        if seed is not None and not isinstance(seed, Tensor):
            integer("seed", seed, 0, MAX_SEED)
        integer("sample_offset", samples.get("sample_offset", 0), 0, MAX_SAMPLE_ID)
        self.samples = samples
        self.draws = 0

    def address(self, x: Tensor) -> Address:
        """The address of the next draw, for the samples of a state ``(B, ...)``."""
        address = resolve(x, Purpose.LANGEVIN, **self.samples)
        self.samples = samples_of(address)
        self.draws += 1
        return address._replace(draw=self.draws - 1)

    def normals(self, x: Tensor) -> Tensor:
        """The noise of the next draw for a state, in the dtype that its update is computed in."""
        return random_at(torch.empty(x.shape, dtype=compute_dtype(x), device=x.device), self.address(x))

    def update(
        self,
        x: Tensor,
        score: Tensor,
        c: Coefficient,
        a: Coefficient,
        b: Coefficient | None,
        *,
        mean: bool = True,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The new state, and its mean before the noise: the same tensor if there is none, or no ``mean`` is wanted.

        Args:
            x: the state ``(B, ...)``.
            score: of its shape.
            c, a, b: of c x + a score + b z, numbers or ``(B,)``; b is None where no noise is drawn.
            mean: whether the mean is wanted, for one more pass over the state.
            noise: the noise itself; by default it is that of the next draw.
        """
        address = NO_ADDRESS if b is None or noise is not None else self.address(x)
        update = Update((Term(c, x), Term(a, score)), b, address, address.draw, noise=noise)
        new = move(update)
        return new, move(update._replace(b=None, noise=None)) if mean and b is not None else new
