"""Launches the C++ kernels of InstanceNorm++ with its ELU, of group normalisation with its SiLU, and gradients.

Like :mod:`.cpp`, whose library this is, the launchers check nothing that :mod:`fastlangevin.ops` has checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import native
from .requests import NormalisationRequest, packer

__all__ = ["group_norm", "group_norm_backward", "instance_norm", "instance_norm_backward"]

_pack = packer(NormalisationRequest)
EPSILON = 1e-5  # of InstanceNorm++


def instance_norm(
    out: Tensor,
    x: Tensor,
    residual: Tensor | None,
    total: Tensor | None,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    activation: bool,
    labels: Tensor | None = None,
) -> None:
    """Writes the norm of ``x``, or of ``x`` plus a residual, through ELU where that is wanted; and its statistics.

    Args:
        out: shape, dtype and layout of ``x``; does not overlap it.
        x: ``(B, C, H, W)`` with C > 1, contiguous or channels_last: fp32, fp16, bf16 or fp64.
        residual: as ``x``, or None.
        total: as ``x``, overlaps nothing, written: ``x + residual``. None where there is no residual.
        gamma, alpha, beta: ``(B, C)``, any stride of the rows and 1 in them, of the computing dtype: fp64 for an fp64
            input and fp32 otherwise.
        mean, rstd: ``(B, C)``, contiguous, likewise: written.
        activation: whether ELU follows.
        labels: int64 ``(B,)``, contiguous, each sample's row of ``gamma``, ``alpha`` and ``beta``, which have a row for
            each level; None: sample i has row i.

    Raises:
        ValueError: a label is out of range.
    """
    _launch(out, x, residual, (gamma, alpha, beta), mean, rstd, None, activation, total=total, labels=labels)


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
    _launch(grad_x, x, grad_out, (gamma, alpha, beta), mean, rstd, gradients, activation)


def group_norm(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    groups: int,
    eps: float,
    activation: bool,
) -> None:
    """Writes the norm of ``x`` over groups of channels, through SiLU where that is wanted; and its statistics.

    Args:
        out: shape, dtype and layout of ``x``; does not overlap it.
        x: ``(B, C, H, W)``, contiguous or channels_last: fp32, fp16, bf16 or fp64.
        weight, bias: ``(C,)``, contiguous, of the computing dtype: fp64 for an fp64 input and fp32 otherwise.
        mean, rstd: ``(B, groups)``, contiguous, likewise: written.
        groups: divides C.
        eps: added to the variance.
        activation: whether SiLU follows.
    """
    _launch(out, x, None, (weight, None, bias), mean, rstd, None, activation, groups=groups, epsilon=eps)


def group_norm_backward(
    grad_x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    groups: int,
    activation: bool,
) -> None:
    """Writes the gradients by the input, and by each sample's weight and bias.

    Args:
        grad_x: shape, dtype and layout of ``x``; overlaps nothing.
        grad_weight, grad_bias: ``(B, C)``, contiguous, of the computing dtype.
        grad_out: as ``x``.
        x, weight, bias, groups: as for :func:`group_norm`.
        mean, rstd: what it wrote.
        activation: whether SiLU followed.
    """
    gradients = grad_weight.data_ptr(), 0, grad_bias.data_ptr()
    _launch(grad_x, x, grad_out, (weight, None, bias), mean, rstd, gradients, activation, groups=groups)


def _launch(
    out: Tensor,
    x: Tensor,
    other: Tensor | None,
    parameters: tuple[Tensor, Tensor | None, Tensor],
    mean: Tensor,
    rstd: Tensor,
    gradients: tuple[int, int, int] | None,
    activation: bool,
    *,
    total: Tensor | None = None,
    groups: int = 0,
    epsilon: float = EPSILON,
    labels: Tensor | None = None,
) -> None:
    elements = x.numel()
    if elements == 0:
        return
    batch, channels = x.shape[:2]
    planes = mean.new_empty(2, batch, channels) if groups else None
    first, second = (planes[0].data_ptr(), planes[1].data_ptr()) if planes is not None else (0, 0)
    gamma, alpha, beta = parameters
    native.normalise(
        _pack(
            native.chosen_set(),
            1 if elements < native.SERIAL_BELOW else torch.get_num_threads(),
            gradients is not None,
            activation,
            not x.is_contiguous(),
            native.CODES[x.dtype],
            batch,
            channels,
            elements // (batch * channels),
            groups,
            epsilon,
            out.data_ptr(),
            x.data_ptr(),
            0 if other is None else other.data_ptr(),
            0 if total is None else total.data_ptr(),
            gamma.data_ptr(),
            0 if alpha is None else alpha.data_ptr(),
            beta.data_ptr(),
            0 if groups else gamma.stride(0),
            0 if alpha is None else alpha.stride(0),
            0 if groups else beta.stride(0),
            0 if labels is None else labels.data_ptr(),
            gamma.shape[0],
            mean.data_ptr(),
            rstd.data_ptr(),
            *(gradients or (0, 0, 0)),
            first,
            second,
        )
    )
