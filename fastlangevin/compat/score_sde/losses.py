"""The losses of score_sde: denoising score matching over continuous times, over a ladder, and of predicted noise.

``reduce_mean=True`` is the mean over the elements of a sample without the factor 1/2, ``False`` half the sum; both are
averaged over the batch.
"""

from __future__ import annotations

import math
from typing import Protocol, Unpack

import torch
from torch import Tensor

from fastlangevin import ops
from fastlangevin.compat.addresses import samples_of
from fastlangevin.compat.score_sde.scores import Network, check_sde, get_model_fn, get_score_fn
from fastlangevin.compat.score_sde.sde import SDE, VESDE, VPSDE, Places, per_sample
from fastlangevin.kernels.operands import Objective, Perturbation, Tables
from fastlangevin.ladders import positive
from fastlangevin.losses import DenoisingScoreMatching
from fastlangevin.losses.arguments import check_batch
from fastlangevin.noise import Purpose, SampleOptions, check_samples, resolve, resolve_draw
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.perturb import LEVEL_PURPOSE, perturb_at
from fastlangevin.ops.random import random_at
from fastlangevin.reference import level_of

__all__ = ["get_ddpm_loss_fn", "get_sde_loss_fn", "get_smld_loss_fn"]


class Loss(Protocol):
    """``loss_fn(model, batch)``, ``batch`` ``(B, *)``; the rest says where the random numbers stand.

    ``seed`` is 0 to 2^64 - 1 and ``step`` the training step, which must change from step to step with a fixed seed;
    with neither ``seed`` nor ``generator``, every call takes a seed from PyTorch's default CPU generator.
    """

    def __call__(
        self,
        model: Network,
        batch: Tensor,
        *,
        step: int | Tensor = 0,
        **samples: Unpack[SampleOptions],
    ) -> Tensor: ...


def _factor(batch: Tensor, reduce_mean: bool) -> float:
    """The factor that turns half a sum over the elements into their mean."""
    return 2 / batch[0].numel() if reduce_mean else 1.0


def get_sde_loss_fn(
    sde: SDE,
    train: bool,
    reduce_mean: bool = True,
    continuous: bool = True,
    likelihood_weighting: bool = True,
    eps: float = 1e-5,
) -> Loss:
    """||std score + z||^2 at perturbed data m x + std z, over times uniform from ``eps`` to T.

    Args:
        sde: the diffusion.
        train: whether the network is put in training or in evaluation mode.
        reduce_mean: the mean over elements; else half their sum.
        continuous: as for :func:`get_score_fn`.
        likelihood_weighting: g(t)^2 ||score + z/std||^2 instead.
        eps: the least time, between 0 and T.

    Returns:
        A :class:`Loss`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    check_sde(sde)
    if positive("eps", eps) >= sde.T:
        raise ValueError(f"eps, the least time, must be below T = {sde.T}, got {eps}")

    def loss_fn(
        model: Network,
        batch: Tensor,
        *,
        step: int | Tensor = 0,
        **samples: Unpack[SampleOptions],
    ) -> Tensor:
        check_batch(("model", model), batch, "mean", takes="x, labels")
        size, device, dtype = len(batch), batch.device, compute_dtype(batch)
        address = resolve(batch, Purpose.DSM_NOISE, resolve_draw(step, device, "step"), **samples)
        empty = torch.empty((size, 1), dtype=dtype, device=device)
        uniform = random_at(empty, address._replace(purpose=LEVEL_PURPOSE), uniform=True)
        t = uniform[:, 0] * (sde.T - eps) + eps
        mean, std = sde.marginal_prob(batch, t)
        each = torch.arange(size, dtype=torch.int64, device=device)
        perturbed, _ = perturb_at(Perturbation(mean, std.to(dtype), each, address, LEVEL_PURPOSE), "auto")
        # To compare ladders at every step would make the host wait for the device.
        score = get_score_fn(sde, model, train=train, continuous=continuous, strict_ladder=False)(perturbed, t)
        scale = std.to(compute_dtype(score))
        weight = torch.ones_like(scale)
        if likelihood_weighting:
            weight = ((sde.rates(t)[1] / sde.scales(t)[1]) ** 2).to(scale)
        tables = Tables(scale, weight, scale * weight)
        loss, _, _ = ops.dsm(Objective(score, each, tables, address))
        return loss * _factor(batch, reduce_mean)

    return loss_fn


def get_smld_loss_fn(vesde: SDE, train: bool, reduce_mean: bool = False) -> Loss:
    """Annealed denoising score matching over the ladder of a VESDE: :func:`fastlangevin.dsm_loss`.

    Args:
        vesde: a :class:`VESDE`. The network takes int64 levels, 0 = most noise, and returns the score.
        train: whether the network is put in training or in evaluation mode.
        reduce_mean: the mean over elements of (sigma score + z)^2; else half their sum.

    Returns:
        A :class:`Loss`.

    Raises:
        TypeError: ``vesde`` is another diffusion.
    """
    if not isinstance(vesde, VESDE):
        raise TypeError(
            f"vesde must be a VESDE, whose ladder SMLD trains on, got {type(vesde).__name__}; get_ddpm_loss_fn fits "
            "VPSDE, get_sde_loss_fn every diffusion"
        )
    objective = DenoisingScoreMatching(vesde.ladder)

    def loss_fn(
        model: Network,
        batch: Tensor,
        *,
        step: int | Tensor = 0,
        **samples: Unpack[SampleOptions],
    ) -> Tensor:
        check_samples(samples)
        check_batch(("model", model), batch, "mean", takes="x, labels")
        loss: Tensor = objective(get_model_fn(model, train), batch, step=step, **samples)
        return loss * _factor(batch, reduce_mean)

    return loss_fn


def get_ddpm_loss_fn(vpsde: SDE, train: bool, reduce_mean: bool = True) -> Loss:
    """||h - z||^2 for a network h that predicts the noise of sqrt(alpha_bar_i) x + sqrt(1 - alpha_bar_i) z.

    Args:
        vpsde: a :class:`VPSDE`. The network takes int64 labels i, 0 = least noise.
        train: whether the network is put in training or in evaluation mode.
        reduce_mean: the mean over elements; else half their sum.

    Returns:
        A :class:`Loss`.

    Raises:
        TypeError: ``vpsde`` is another diffusion.
    """
    if not isinstance(vpsde, VPSDE):
        raise TypeError(
            f"vpsde must be a VPSDE, whose betas DDPM trains on, got {type(vpsde).__name__}; get_smld_loss_fn fits "
            "VESDE, get_sde_loss_fn every diffusion"
        )
    factors = Places([[math.sqrt(alpha_bar)] for alpha_bar in vpsde.alpha_bars])
    objective = DenoisingScoreMatching(vpsde.stds_by_place.values.flatten().flip(0), output="noise")
    last = vpsde.N - 1

    def loss_fn(
        model: Network,
        batch: Tensor,
        *,
        step: int | Tensor = 0,
        **samples: Unpack[SampleOptions],
    ) -> Tensor:
        check_batch(("model", model), batch, "mean", takes="x, labels")
        model_fn = get_model_fn(model, train)
        address = resolve(batch, Purpose.DSM_LEVEL, resolve_draw(step, batch.device, "step"), **samples)
        empty = torch.empty((len(batch), 1), dtype=torch.float32, device=batch.device)
        levels = level_of(random_at(empty, address, uniform=True)[:, 0], last + 1)
        loss: Tensor = objective(
            lambda x, each: model_fn(x, last - each),
            batch * per_sample(factors.at(last - levels)[0], batch),
            step=step,
            labels=levels,
            **samples_of(address),
        )
        return loss * _factor(batch, reduce_mean)

    return loss_fn
