"""Sampling with a part of the data known: inpainting, and colouring a grey image.

After every call of the corrector and of the predictor the known part is put in, perturbed to the noise level of the
time with fresh noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor

from fastlangevin.compat.score_sde.sampling import OWN_DEFAULTS, PCOptions, Rescale, Sampler
from fastlangevin.compat.score_sde.scores import Network
from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.ops.arguments import floating, same_place
from fastlangevin.samplers import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, takes

__all__ = ["get_pc_colorizer", "get_pc_inpainter"]


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


@takes(PCOptions, {**OWN_DEFAULTS, **DEFAULTS})
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
    **options: Unpack[PCOptions],
) -> Callable[[Network, Tensor, Tensor], Tensor | SamplingResult]:
    """Inpainting by predictor and corrector: the known region is that of the data at the noise level of each time.

    Args:
        sde, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, denoise, eps: as for
            :func:`get_pc_sampler`.
        options: those of :class:`fastlangevin.compat.score_sde.PCOptions`.

    Returns:
        ``pc_inpainter(model, data, mask) -> samples``: ``data`` ``(B, ...)``; ``mask`` broadcasts to it, bool or 0 and
        1, 1 where the data are known. Samples have the dtype and device of ``data``. With ``full_output`` it returns a
        :class:`fastlangevin.SamplingResult`.

    Raises:
        TypeError, ValueError: as for :func:`get_pc_sampler`; by ``pc_inpainter``, a mask of another shape or of other
            values.
        NonFiniteError: by ``pc_inpainter``, a state is not finite.
    """
    made = Sampler(
        sde,
        predictor,
        corrector,
        inverse_scaler,
        snr,
        n_steps,
        probability_flow,
        continuous,
        denoise,
        eps,
        options,
    )

    def pc_inpainter(model: Network, data: Tensor, mask: Tensor) -> Tensor | SamplingResult:
        data = floating("data", data).detach()
        known = _mask(mask, data)

        def put(x: Tensor, values: Tensor) -> Tensor:
            return torch.where(known, values, x)

        return made.output(made.run(model, torch.empty_like(data), (data, put)))

    return pc_inpainter


@takes(PCOptions, {**OWN_DEFAULTS, **DEFAULTS})
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
    **options: Unpack[PCOptions],
) -> Callable[[Network, Tensor], Tensor | SamplingResult]:
    """Colouring by predictor and corrector: the mean of the three channels is known, what stands across it is sought.

    The known coordinate is that along (1, 1, 1)/sqrt(3), in which white noise of the channels has the variance of one.

    Args:
        sde, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, denoise, eps: as for
            :func:`get_pc_sampler`.
        options: those of :class:`fastlangevin.compat.score_sde.PCOptions`.

    Returns:
        ``pc_colorizer(model, gray_scale_img) -> samples`` ``(B, 3, H, W)``: the grey image ``(B, 3, H, W)``, of which
        the mean of the channels is taken, or ``(B, 1, H, W)``. With ``full_output`` it returns a
        :class:`fastlangevin.SamplingResult`.

    Raises:
        TypeError, ValueError: as for :func:`get_pc_sampler`; by ``pc_colorizer``, an image of another shape.
        NonFiniteError: by ``pc_colorizer``, a state is not finite.
    """
    made = Sampler(
        sde,
        predictor,
        corrector,
        inverse_scaler,
        snr,
        n_steps,
        probability_flow,
        continuous,
        denoise,
        eps,
        options,
    )

    def pc_colorizer(model: Network, gray_scale_img: Tensor) -> Tensor | SamplingResult:
        image = floating("gray_scale_img", gray_scale_img).detach()
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise ValueError(f"gray_scale_img must be (B, 3, H, W) or (B, 1, H, W), got {tuple(image.shape)}")
        length = 3**0.5
        grey = image.mean(1, keepdim=True) * length

        def put(x: Tensor, values: Tensor) -> Tensor:
            return x + (values / length - x.mean(1, keepdim=True))

        like = grey.new_empty((len(grey), 3, *grey.shape[2:]))
        return made.output(made.run(model, like, (grey, put)))

    return pc_colorizer
