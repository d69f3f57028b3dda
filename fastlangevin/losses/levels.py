"""The level of each sample of a training step, at the address that denoising score matching has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from fastlangevin import noise
from fastlangevin.ladders import Sigmas
from fastlangevin.losses.arguments import ladder_of
from fastlangevin.losses.dsm import dsm_labels
from fastlangevin.noise import Generators, Seed
from fastlangevin.ops.arguments import check_labels, compute_dtype


class Levels(NamedTuple):
    """The ladder ``(L,)``, each sample's level, int64 ``(B,)``, and sigma ``(B, 1, ...)``; the seed, and the step."""

    ladder: Tensor
    labels: Tensor
    sigma: Tensor
    seed: Seed
    step: int | Tensor


def levels_of(
    x: Tensor,
    sigmas: Sigmas,
    *,
    labels: Tensor | None,
    seed: Seed | None,
    generator: Generators | None,
    step: int | Tensor,
    sample_ids: Tensor | Sequence[int] | None,
    sample_offset: int,
) -> Levels:
    """Checks the arguments, as :func:`fastlangevin.dsm_loss` has them, before it draws a seed from a generator."""
    ladder = ladder_of(sigmas).to(device=x.device, dtype=compute_dtype(x))
    step = noise.resolve_draw(step, x.device, name="step")
    noise.resolve_sample_ids(sample_ids, sample_offset, len(x), x.device)
    if labels is not None:
        check_labels(labels, len(x), ladder.numel())
    seed = noise.resolve_seed(seed, generator, len(x), x.device)
    if labels is None:
        labels = dsm_labels(
            len(x),
            ladder.numel(),
            seed=seed,
            step=step,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            device=x.device,
        )
    labels = labels.to(x.device)
    return Levels(ladder, labels, ladder[labels].reshape(-1, *(1,) * (x.ndim - 1)), seed, step)
