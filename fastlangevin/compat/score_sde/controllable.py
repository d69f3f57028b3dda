"""Sampling with a part of the data known: inpainting, and colouring a grey image.

After every call of the corrector and of the predictor the known part is put in, perturbed to the noise level of the
time with fresh noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastlangevin.compat.score_sde.draws import AddressedNoise
from fastlangevin.compat.score_sde.sampling import Rescale, SampleIds, Sampler, sampler
from fastlangevin.compat.score_sde.scores import Network
from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.kernels.address import Term, Update
from fastlangevin.noise import Generators, Purpose, Seed
from fastlangevin.ops import move
from fastlangevin.ops.arguments import compute_dtype, floating, same_place
from fastlangevin.rules import SignalNorm

__all__ = ["get_pc_colorizer", "get_pc_inpainter"]

# (state, values of what is known) to the state with them put in.
Put = Callable[[Tensor, Tensor], Tensor]


def _sampled(
    made: Sampler, model: Network, known: Tensor, shape: Sequence[int], put: Put, noise: AddressedNoise
) -> Tensor:
    """Samples with the known part put in after every call; at time T too, without its noise if ``strict``."""
    network, sde, strict = made.network(model), made.sde, made.strict

    def impose(x: Tensor, mean: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        at_t, std = sde.marginal_prob(known, t)
        address, terms = noise.address(known, Purpose.INPAINTING), (Term(1.0, at_t), Term(0.0, at_t))
        x = put(x, move(Update(terms, std, address, address.draw)))
        return x, put(x if strict else mean, at_t)

    x = noise.prior(sde, shape, known.dtype, known.device)
    if strict:
        x = put(x, known)
    else:
        x, _ = impose(x, x, torch.full(known.shape[:1], sde.T, dtype=compute_dtype(known), device=known.device))
    return made.run(network, x, noise, impose)[0]


def _mask(mask: Any, data: Tensor) -> Tensor:
    """The mask as bools of the data's shape; a float mask is read once, to see that it has zeros and ones alone."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a tensor, 1 or True where the data are known, got {type(mask).__name__}")
    if mask.is_complex():
        raise TypeError(f"mask must be bool, or a number of 0 or 1, got {mask.dtype}; use mask != 0")
    same_place("mask", mask, data)
    try:
        mask = mask.expand(data.shape)
    except RuntimeError as error:
        raise ValueError(
            f"mask must broadcast to the shape of data, {tuple(data.shape)}, got {tuple(mask.shape)}"
        ) from error
    chosen: Tensor = mask != 0
    if mask.dtype != torch.bool and not torch.equal(mask, chosen.to(mask.dtype)):
        raise ValueError("mask must be 0 where data are sought and 1 where they are known, got other values")
    return chosen


def get_pc_inpainter(
    sde: SDE,
    predictor: type[Any] | str | None,
    corrector: type[Any] | str | None,
    inverse_scaler: Rescale,
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = False,
    denoise: bool = True,
    eps: float = 1e-5,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    sample_offset: int = 0,
    norm: SignalNorm = "batch",
    progress: bool = False,
    strict: bool = False,
    strict_ladder: bool = True,
) -> Callable[[Network, Tensor, Tensor], Tensor]:
    """Inpainting by predictor and corrector: the known region is that of the data at the noise level of each time.

    Args:
        strict: as published, the mean that ``denoise`` returns is rebuilt from the noisy state, so that the sought
            region is not denoised, and the known region starts without noise.
        sde, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, denoise, eps, seed,
            generator, sample_ids, sample_offset, norm, progress, strict_ladder: as for :func:`get_pc_sampler`.

    Returns:
        ``pc_inpainter(model, data, mask) -> samples``: ``data`` ``(B, ...)``; ``mask`` broadcasts to it, bool or 0 and
        1, 1 where the data are known. Samples have the dtype and device of ``data``.

    Raises:
        TypeError, ValueError: as for :func:`get_pc_sampler`; by ``pc_inpainter``, a mask of another shape or of other
            values.
        NonFiniteError: by ``pc_inpainter``, a state is not finite.
    """
    made = sampler(
        sde,
        predictor,
        corrector,
        inverse_scaler,
        snr,
        n_steps,
        probability_flow=probability_flow,
        continuous=continuous,
        denoise=denoise,
        eps=eps,
        norm=norm,
        strict=strict,
        strict_ladder=strict_ladder,
        progress=progress,
    )

    def pc_inpainter(model: Network, data: Tensor, mask: Tensor) -> Tensor:
        data = floating("data", data).detach()
        known = _mask(mask, data)

        def put(x: Tensor, values: Tensor) -> Tensor:
            return torch.where(known, values, x)

        noise = AddressedNoise(seed=seed, generator=generator, sample_ids=sample_ids, sample_offset=sample_offset)
        return _sampled(made, model, data, data.shape, put, noise)

    return pc_inpainter


def get_pc_colorizer(
    sde: SDE,
    predictor: type[Any] | str | None,
    corrector: type[Any] | str | None,
    inverse_scaler: Rescale,
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = False,
    denoise: bool = True,
    eps: float = 1e-5,
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    sample_offset: int = 0,
    norm: SignalNorm = "batch",
    progress: bool = False,
    strict: bool = False,
    strict_ladder: bool = True,
) -> Callable[[Network, Tensor], Tensor]:
    """Colouring by predictor and corrector: the mean of the three channels is known, what stands across it is sought.

    The known coordinate is that along (1, 1, 1)/sqrt(3), in which white noise of the channels has the variance of one.

    Args:
        strict: as for :func:`get_pc_inpainter`.
        sde, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, denoise, eps, seed,
            generator, sample_ids, sample_offset, norm, progress, strict_ladder: as for :func:`get_pc_sampler`.

    Returns:
        ``pc_colorizer(model, gray_scale_img) -> samples`` ``(B, 3, H, W)``: the grey image ``(B, 3, H, W)``, of which
        the mean of the channels is taken, or ``(B, 1, H, W)``.

    Raises:
        TypeError, ValueError: as for :func:`get_pc_sampler`; by ``pc_colorizer``, an image of another shape.
        NonFiniteError: by ``pc_colorizer``, a state is not finite.
    """
    made = sampler(
        sde,
        predictor,
        corrector,
        inverse_scaler,
        snr,
        n_steps,
        probability_flow=probability_flow,
        continuous=continuous,
        denoise=denoise,
        eps=eps,
        norm=norm,
        strict=strict,
        strict_ladder=strict_ladder,
        progress=progress,
    )

    def pc_colorizer(model: Network, gray_scale_img: Tensor) -> Tensor:
        image = floating("gray_scale_img", gray_scale_img).detach()
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise ValueError(f"gray_scale_img must be (B, 3, H, W) or (B, 1, H, W), got {tuple(image.shape)}")
        length = 3**0.5
        grey = image.mean(1, keepdim=True) * length

        def put(x: Tensor, values: Tensor) -> Tensor:
            return x + (values / length - x.mean(1, keepdim=True))

        noise = AddressedNoise(seed=seed, generator=generator, sample_ids=sample_ids, sample_offset=sample_offset)
        return _sampled(made, model, grey, (image.shape[0], 3, *image.shape[2:]), put, noise)

    return pc_colorizer
