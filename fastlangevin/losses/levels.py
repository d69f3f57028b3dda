"""The level of each sample of a training step, at the address that denoising score matching has it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastlangevin.ladders import Sigmas
from fastlangevin.losses.arguments import ladder_of
from fastlangevin.losses.dsm import address_of
from fastlangevin.noise import Address, Purpose, SampleOptions
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.random import random_at
from fastlangevin.reference import level_of


class Levels(NamedTuple):
    """The ladder ``(L,)``, each sample's level, int64 ``(B,)``, sigma ``(B, 1, ...)``, and the address of the noise."""

    ladder: Tensor
    labels: Tensor
    sigma: Tensor
    address: Address


def levels_of(x: Tensor, sigmas: Sigmas, labels: Tensor | None, step: int | Tensor, samples: SampleOptions) -> Levels:
    """Checks the arguments, as :func:`fastlangevin.dsm_loss` has them, before it draws a seed from a generator."""
    ladder = ladder_of(sigmas).to(device=x.device, dtype=compute_dtype(x))
    address = address_of(x, ladder, labels, step, samples)
    if labels is None:
        empty = torch.empty((len(x), 1), dtype=torch.float32, device=x.device)
        uniform = random_at(empty, address._replace(purpose=int(Purpose.DSM_LEVEL)), uniform=True)
        labels = level_of(uniform[:, 0], ladder.numel())
    labels = labels.to(x.device)
    return Levels(ladder, labels, ladder[labels].reshape(-1, *(1,) * (x.ndim - 1)), address)
