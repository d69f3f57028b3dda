"""Augmentation of a batch before noise is added, on any device. Randomness depends on step and place alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from fastlangevin import ops
from fastlangevin.ladders import positive
from fastlangevin.noise import Purpose, SampleOptions, check_samples, integer, resolve_draw
from fastlangevin.ops.arguments import conversion

__all__ = ["LOGIT_ALPHA", "Augment", "dequantise", "expit", "flip", "logit"]

LOGIT_ALPHA = 1e-6


def dequantise(
    images: Tensor,
    greys: int,
    *,
    step: int | Tensor = 0,
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Spreads each grey value evenly over its bin: (v + u) / greys for v = 0 .. greys - 1 and u uniform on (0, 1).

    Without it the data lie on a grid, and the score of small noise levels is that of the grid (Uria, Murray and
    Larochelle 2013).

    Args:
        images: fp32 ``(B, *)``, multiples of 1 / (greys - 1) in [0, 1].
        greys: number of different values a pixel can have.
        step: training step, the draw number of the address.
        samples: the seed of the run and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

    Returns:
        fp32 ``(B, *)`` in (0, 1]; v + u is rounded to fp32, so the upper end of a bin occurs.
    """
    _check_images(images)
    greys = integer("greys", greys, 2, 2**16)
    uniform = _uniform(images.shape, images.device, Purpose.AUGMENTATION, step, samples)
    return (images * (greys - 1) + uniform) / greys


def flip(
    images: Tensor,
    *,
    step: int | Tensor = 0,
    **samples: Unpack[SampleOptions],
) -> Tensor:
    """Mirrors each image left to right with probability 1/2.

    Args:
        images: ``(B, C, H, W)``.
        step, samples: as for :func:`dequantise`.

    Returns:
        ``(B, C, H, W)``.

    Raises:
        ValueError: ``images`` has another number of dimensions.
    """
    _check_images(images)
    if images.ndim != 4:
        raise ValueError(f"flip takes images (B, C, H, W), got shape {tuple(images.shape)}; turn it off for other data")
    uniform = _uniform((images.shape[0], 1, 1, 1), images.device, Purpose.FLIP, step, samples)
    return torch.where(uniform < 0.5, images.flip(-1), images)


def _uniform(
    shape: Sequence[int], device: torch.device, purpose: Purpose, step: int | Tensor, samples: SampleOptions
) -> Tensor:
    check_samples(samples)
    return ops.rand(shape, draw=resolve_draw(step, device, "step"), purpose=purpose, device=device, **samples)


def logit(v: Tensor, alpha: float = LOGIT_ALPHA) -> Tensor:
    """Maps [0, 1] to the whole line: x = log(p / (1 - p)) with p = alpha + (1 - 2 alpha) v (Dinh et al. 2017).

    Args:
        v: floating, any shape, in [0, 1]; on another device than the CPU this is not checked, since the host would
            wait.
        alpha: in (0, 1/2), keeps 0 and 1 finite: |x| <= log((1 - alpha) / alpha), 13.8 for 1e-6.

    Returns:
        The shape of ``v``.

    Raises:
        ValueError: ``v`` or ``alpha`` is out of range.
    """
    alpha = _check_alpha(alpha)
    _check_images(v)
    if v.device.type == "cpu" and v.numel():
        low, high = (each.item() for each in v.aminmax())
        if not 0 <= low <= high <= 1:
            raise ValueError(f"logit takes values in [0, 1], got {low} to {high}; scale the data, or turn logit off")
    # 1 - p in fp32 would have two digits left at v = 1; from 1 - v, which is exact there, it has them all.
    return (alpha + (1 - 2 * alpha) * v).log() - (alpha + (1 - 2 * alpha) * (1 - v)).log()


def expit(x: Tensor, alpha: float = LOGIT_ALPHA) -> Tensor:
    """The inverse of :func:`logit`; for |x| beyond its range, values up to alpha / (1 - 2 alpha) outside [0, 1].

    Args:
        x: any shape, what :func:`logit` returned.
        alpha: as there.

    Returns:
        The shape of ``x``.
    """
    alpha = _check_alpha(alpha)
    return (x.sigmoid() - alpha) / (1 - 2 * alpha)


@dataclass(frozen=True)
class Augment:
    """The augmentations of each batch, in this order.

    Args:
        dequantise: spread grey values over their bins, anew in each step; data that are not quantised stay as they are.
        flip: mirror images left to right with probability 1/2, anew in each step.
        logit: alpha of the logit transform, 1e-6 as a rule; None for none. It needs ``dequantise``: the logit of a grid
            is a grid, with points far from the others.
    """

    dequantise: bool = True
    flip: bool = False
    logit: float | None = None

    def __post_init__(self) -> None:
        for name in ("dequantise", "flip"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        if self.logit is not None:
            _check_alpha(self.logit, "logit")
            if not self.dequantise:
                raise ValueError(
                    f"logit = {self.logit} needs dequantise=True: the logit of a grid of grey values is a grid; data "
                    "that are not quantised stay as they are"
                )

    def __call__(
        self,
        x: Tensor,
        *,
        greys: int | None,
        step: int | Tensor = 0,
        **samples: Unpack[SampleOptions],
    ) -> Tensor:
        """A batch as it is trained on.

        Args:
            x: fp32 ``(B, *)`` from a source.
            greys: the source's number of grey values, or None.
            step: training step.
            samples: the seed of the run and the places in the batch of the step, which are the samples' ids: see
                :class:`fastlangevin.noise.SampleOptions` and :meth:`AddressedBatches.positions`.

        Returns:
            fp32 ``(B, *)``.
        """
        if self.dequantise and greys is not None:
            x = dequantise(x, greys, step=step, **samples)
        if self.flip:
            x = flip(x, step=step, **samples)
        return x if self.logit is None else logit(x, self.logit)

    def inverse(self, x: Tensor) -> Tensor:
        """Converts from the units of training back to those of pictures, [0, 1]."""
        return x if self.logit is None else expit(x, self.logit)


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor (B, *), got {type(images).__name__}")
    if not images.is_floating_point():
        mend = conversion(images.dtype, "divide by the largest value")
        raise TypeError(f"images must be floating in [0, 1], got {images.dtype}; {mend}")


def _check_alpha(alpha: float, name: str = "alpha") -> float:
    alpha = positive(name, alpha)
    if alpha >= 0.5:
        raise ValueError(f"{name} must be below 1/2, got {alpha}; 1e-6 is usual")
    return alpha
