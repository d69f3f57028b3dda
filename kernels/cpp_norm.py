"""Launches the C++ kernels of InstanceNorm++ with its ELU, forward and backward.

Like :mod:`.cpp`, whose library this is, the launchers check nothing that :mod:`fastlangevin.ops` has checked.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from . import cpp

__all__ = ["instance_norm", "instance_norm_backward"]

# NormRequest of csrc/plan.h.
_pack = struct.Struct("9q6Q3q5Q").pack


def instance_norm(
    out: Tensor,
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    activation: bool,
) -> None:
    """Writes the norm of ``x``, through ELU where that is wanted, plus the residual; and its statistics.

    Args:
        out: shape, dtype and layout of ``x``; does not overlap it.
        x: ``(B, C, H, W)`` with C > 1, contiguous or channels_last: fp32, fp16, bf16 or fp64.
        residual: as ``x``, or None.
        gamma, alpha, beta: ``(B, C)``, any stride of the rows and 1 in them, of the computing dtype: fp64 for an fp64
            input and fp32 otherwise.
        mean, rstd: ``(B, C)``, contiguous, likewise: written.
        activation: whether ELU follows.
    """
    _launch(out, x, residual, gamma, alpha, beta, mean, rstd, None, activation)


def instance_norm_backward(
    grad_x: Tensor,
    grad_gamma: Tensor,
    grad_alpha: Tensor,
    grad_beta: Tensor,
    grad_out: Tensor,
    x: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    activation: bool,
) -> None:
    """Writes the gradients by the input, and by each sample's parameters.

    Args:
        grad_x: shape, dtype and layout of ``x``; overlaps nothing.
        grad_gamma, grad_alpha, grad_beta: ``(B, C)``, contiguous, of the computing dtype.
        grad_out: as ``x``.
        x, gamma, alpha, beta: as for :func:`instance_norm`.
        mean, rstd: what it wrote.
        activation: whether ELU followed.
    """
    gradients = grad_gamma.data_ptr(), grad_alpha.data_ptr(), grad_beta.data_ptr()
    _launch(grad_x, x, grad_out, gamma, alpha, beta, mean, rstd, gradients, activation)


def _launch(
    out: Tensor,
    x: Tensor,
    other: Tensor | None,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gradients: tuple[int, int, int] | None,
    activation: bool,
) -> None:
    total = x.numel()
    if total == 0:
        return
    batch, channels = x.shape[:2]
    cpp.norm(
        _pack(
            cpp.chosen_set(),
            1 if total < cpp.SERIAL_BELOW else torch.get_num_threads(),
            gradients is not None,
            activation,
            not x.is_contiguous(),
            cpp.CODES[x.dtype],
            batch,
            channels,
            total // (batch * channels),
            out.data_ptr(),
            x.data_ptr(),
            0 if other is None else other.data_ptr(),
            gamma.data_ptr(),
            alpha.data_ptr(),
            beta.data_ptr(),
            gamma.stride(0),
            alpha.stride(0),
            beta.stride(0),
            mean.data_ptr(),
            rstd.data_ptr(),
            *(gradients or (0, 0, 0)),
        )
    )
