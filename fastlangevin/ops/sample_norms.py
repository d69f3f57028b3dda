"""Euclidean norms of samples, and of noise by its address: in the written order of the objective's sums."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.kernels.operands import SampleNorms
from fastlangevin.memory import in_memory
from fastlangevin.ops.arguments import compute_dtype, elements_per_sample
from fastlangevin.ops.operation import Operation
from fastlangevin.reference import launchers as plain
from fastlangevin.runtime import Launchers

__all__ = ["noise_norms", "norms_with_noise", "sample_norms"]

NO_ADDRESS = Address(0, 0, None, 0, 0)


def _launch(
    launchers: Launchers, x: Tensor, address: Address, of_x: bool, of_noise: bool, noise: Tensor | None
) -> Tensor:
    out = torch.zeros(of_x + of_noise, x.shape[0], dtype=compute_dtype(x), device=x.device)
    if x.numel():
        segment = reference.segment_elements(elements_per_sample(x.shape))
        x = in_memory("x", x)
        noise = None if noise is None else in_memory("noise", noise)
        launchers.norms(out, SampleNorms(x, address, of_x, of_noise, noise), segment)
    return out


def _plain(x: Tensor, address: Address, of_x: bool, of_noise: bool, noise: Tensor | None) -> Tensor:
    out = torch.zeros(of_x + of_noise, x.shape[0], dtype=compute_dtype(x), device=x.device)
    if x.numel():
        plain.norms(out, SampleNorms(x, address, of_x, of_noise, noise), 0)
    return out


# Not registered: what sees its call is shown plain PyTorch.
_NORMS = Operation(None, _launch, plain=_plain)


def sample_norms(x: Tensor, *, impl: str = "auto") -> Tensor:
    """The norm of each sample, ``(B,)`` in the computing dtype: the same bits in any batch and on any implementation.

    Args:
        x: ``(B, ...)``, any float dtype and strides.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
    """
    norms: Tensor = _NORMS(impl, x.device, x, NO_ADDRESS, True, False, None)
    return norms[0]


def noise_norms(like: Tensor, address: Address, *, impl: str = "auto") -> Tensor:
    """The norm of the noise that an update of ``like`` draws, ``(B,)``; the noise itself is not stored.

    Args:
        like: ``(B, ...)``, whose shape and device are taken.
        address: of the noise, resolved.
        impl: as for :func:`sample_norms`.
    """
    norms: Tensor = _NORMS(impl, like.device, like, address, False, True, None)
    return norms[0]


def norms_with_noise(
    x: Tensor, address: Address = NO_ADDRESS, *, noise: Tensor | None = None, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """:func:`sample_norms` of ``x`` and the norms of the noise that its update draws, in one launch.

    The noise itself is not stored.

    Args:
        x: as for :func:`sample_norms`.
        address: of the noise, resolved.
        noise: the noise itself, same shape, any float dtype, in the place of its address.
        impl: as for :func:`sample_norms`.
    """
    of_x, of_noise = _NORMS(impl, x.device, x, address, True, True, noise)
    return of_x, of_noise
