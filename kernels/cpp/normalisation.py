"""Launches the C++ kernels of InstanceNorm++ with its ELU, of group normalisation with its SiLU, and gradients.

Like :mod:`.cpp`, whose library this is, the launchers check nothing that :mod:`fastlangevin.ops` has checked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..operands import GroupNorm, GroupNormGradients, InstanceNorm, InstanceNormGradients, Statistics
from . import native
from .requests import NormalisationRequest, packer

__all__ = ["group_norm", "group_norm_backward", "instance_norm", "instance_norm_backward"]

_pack = packer(NormalisationRequest)
EPSILON = 1e-5  # of InstanceNorm++


def instance_norm(out: Tensor, total: Tensor | None, statistics: Statistics, given: InstanceNorm) -> None:
    """Writes the norm, the sum where there is a residual, and the statistics.

    Args:
        out: the result.
        total: as x, overlaps nothing: x plus the residual. None where there is none.
        statistics: ``(B, C)``.
        given: the input.

    Raises:
        ValueError: a label is out of range.
    """
    x, *parameters, activation, residual, labels = given
    _launch((out, x, residual, total), parameters, statistics, (activation, 0, EPSILON), labels=labels)


def instance_norm_backward(
    gradients: InstanceNormGradients, grad_out: Tensor, given: InstanceNorm, statistics: Statistics
) -> None:
    """Writes the gradients by the input, and by each sample's parameters.

    Args:
        gradients: the results.
        grad_out: the derivative by the norm, as x.
        given: the input, without residual and labels.
        statistics: what :func:`instance_norm` wrote.
    """
    x, *parameters, activation, _, _ = given
    by_x, *others = gradients
    _launch((by_x, x, grad_out, None), parameters, statistics, (activation, 0, EPSILON), gradients=others)


def group_norm(out: Tensor, statistics: Statistics, given: GroupNorm, eps: float) -> None:
    """Writes the norm and its statistics ``(B, G)``; ``eps`` is added to the variance."""
    x, weight, bias, groups, activation = given
    _launch((out, x, None, None), (weight, None, bias), statistics, (activation, groups, eps))


def group_norm_backward(
    gradients: GroupNormGradients, grad_out: Tensor, given: GroupNorm, statistics: Statistics
) -> None:
    """Writes the gradients by the input, and by each sample's weight and bias.

    Args:
        gradients: the results.
        grad_out: the derivative by the norm, as x.
        given: the input.
        statistics: what :func:`group_norm` wrote.
    """
    x, weight, bias, groups, activation = given
    by_x, by_weight, by_bias = gradients
    own, options = (by_weight, None, by_bias), (activation, groups, EPSILON)
    _launch((by_x, x, grad_out, None), (weight, None, bias), statistics, options, gradients=own)


def _launch(
    images: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    parameters: Sequence[Tensor | None],
    statistics: Statistics,
    options: tuple[bool, int, float],
    *,
    labels: Tensor | None = None,
    gradients: Sequence[Tensor | None] | None = None,
) -> None:
    """Any call, as a ``NormalisationRequest``.

    Args:
        images: what is written, the input, the residual or the derivative by the result, and their sum.
        parameters: gamma, alpha and beta.
        statistics: read where there are gradients, and written otherwise.
        options: whether an activation follows; the groups, 0 for InstanceNorm++; epsilon.
        labels: of an :class:`InstanceNorm`.
        gradients: by the parameters.
    """
    out, x, other, total = images
    elements = x.numel()
    if elements == 0:
        return
    batch, channels = x.shape[:2]
    activation, groups, epsilon = options
    gamma, alpha, beta = parameters
    by_gamma, by_alpha, by_beta = gradients or (None, None, None)
    mean, rstd = statistics
    assert gamma is not None
    assert beta is not None
    first, second = mean.new_empty(2, batch, channels) if groups else (None, None)
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
            0 if by_gamma is None else by_gamma.data_ptr(),
            0 if by_alpha is None else by_alpha.data_ptr(),
            0 if by_beta is None else by_beta.data_ptr(),
            0 if first is None else first.data_ptr(),
            0 if second is None else second.data_ptr(),
        )
    )
