"""The addresses of a run's noise, and the update that draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from fastlangevin.compat.addresses import samples_of
from fastlangevin.compat.score_sde.sde import SDE
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
from fastlangevin.ops import move
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.random import random_at
from fastlangevin.ops.sample_norms import NO_ADDRESS

__all__ = ["AddressedNoise"]


class AddressedNoise:
    """Where the noise of a chain stands: each call takes the next draw number, from 0.

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
        # Where the updates of a sampler record results that are not finite, as fault= of fastlangevin.step.
        self.fault: Tensor | None = None

    def resolved(self, x: Tensor) -> Address:
        """The address of the first states, for the samples of a state. A seed from a generator is taken once."""
        address = resolve(x, Purpose.INITIAL_STATE, **self.samples)
        self.samples = samples_of(address)
        return address

    def prior(self, sde: SDE, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The states at T of a chain that goes on with this noise."""
        self.resolved(torch.empty(shape, dtype=dtype, device=device))
        return sde.prior_sampling(shape, dtype=dtype, device=device, **self.samples)

    def address(self, x: Tensor, purpose: Purpose = Purpose.LANGEVIN) -> Address:
        """The address of the next draw, for the samples of a state ``(B, ...)``."""
        address = self.resolved(x)._replace(draw=self.draws, purpose=int(purpose))
        self.draws += 1
        return address

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
        mean: bool,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The new state, and its mean before the noise: the same tensor if there is none, or no ``mean`` is wanted.

        ``noise`` is the noise itself; by default it is that of the next draw.
        """
        address = NO_ADDRESS if b is None or noise is not None else self.address(x)
        update = Update((Term(c, x), Term(a, score)), b, address, address.draw, noise=noise, fault=self.fault)
        new = move(update)
        return new, move(update._replace(b=None, noise=None)) if mean and b is not None else new
