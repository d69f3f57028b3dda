"""The objectives of ermongroup/ncsn, of its ``losses/dsm.py`` and ``losses/sliced_sm.py``.

:mod:`fastlangevin.compat.ncsn` has them too. Each returns the mean over the batch. Those of ``sliced_sm`` at the data's
own level are published with their two terms: ``strict=True`` returns ``(loss, loss1, loss2)``, which a published
training loop unpacks. ``fastlangevin.patch("ncsn")`` puts them in with ``strict=True``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastlangevin.compat.ncsn_energy import Energy, Score, energy_score
from fastlangevin.compat.ncsn_sliced import (
    SlicedLoss,
    anneal_sliced_score_estimation_vr,
    partial_sliced_score_matching,
    single_sliced_score_matching,
    sliced_score_estimation,
    sliced_score_estimation_vr,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from fastlangevin.ladders import Sigmas
from fastlangevin.losses import dsm_loss, single_dsm_loss
from fastlangevin.noise import Generators, Seed
from fastlangevin.samplers.options import SampleIds

__all__ = [
    "SlicedLoss",
    "anneal_dsm_score_estimation",
    "anneal_sliced_score_estimation_vr",
    "dsm",
    "dsm_score_estimation",
    "energy_score",
    "partial_sliced_score_matching",
    "single_sliced_score_matching",
    "sliced_score_estimation",
    "sliced_score_estimation_vr",
    "sliced_score_matching",
    "sliced_score_matching_vr",
]

Net = Callable[[Tensor, Tensor], Tensor]


def dsm(
    energy_net: Energy,
    samples: Tensor,
    sigma: float = 1,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Denoising score matching of an energy E: 1/2 ||sigma^2 score + n||^2 with score = -grad E, n = sigma z.

    Args:
        energy_net: ``energy_net(x)`` returns the energies ``(B,)`` or ``(B, 1)``.
        samples: clean samples ``(B, *)``, any float dtype.
        sigma: the noise level in units of the data.
        seed: 64-bit seed of the run, of which the noise is a function with the step and the sample's id.
        generator: instead, a ``torch.Generator`` a seed is drawn from. With neither, PyTorch's default CPU generator.
        step: training step. With a fixed seed it must change from step to step.
        sample_ids: ``B`` global ids; by default 0 to B - 1.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    weighted = single_dsm_loss(
        energy_score(energy_net), samples, sigma, seed=seed, generator=generator, step=step, sample_ids=sample_ids
    )
    return weighted * sigma**2


def dsm_score_estimation(
    scorenet: Score,
    samples: Tensor,
    sigma: float = 0.01,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Denoising score matching at one level, without a weight: 1/2 ||score + n / sigma^2||^2.

    Args:
        scorenet: ``scorenet(x)`` returns the score.
        samples, sigma, seed, generator, step, sample_ids: as for :func:`dsm`.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    return single_dsm_loss(
        scorenet,
        samples,
        sigma,
        weighted=False,
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )


def anneal_dsm_score_estimation(
    scorenet: Net,
    samples: Tensor,
    labels: Tensor,
    sigmas: Sigmas,
    anneal_power: float = 2.0,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    step: int | Tensor = 0,
    sample_ids: SampleIds | None = None,
) -> Tensor:
    """Annealed denoising score matching: 1/2 sigma^anneal_power ||score + n / sigma^2||^2.

    Args:
        scorenet: ``scorenet(x, labels)`` returns the score.
        samples: clean samples ``(B, *)``, any float dtype.
        labels: int64 ``(B,)``, the level of each sample; before ``sigmas``, the other way about than NCSNv2's.
        sigmas: ladder ``(L,)`` in units of the data.
        anneal_power: power of sigma in the weight.
        seed, generator, step, sample_ids: as for :func:`dsm`.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    return dsm_loss(
        scorenet,
        samples,
        sigmas,
        labels=labels,
        anneal_power=anneal_power,
        seed=seed,
        generator=generator,
        step=step,
        sample_ids=sample_ids,
    )
