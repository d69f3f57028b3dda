"""GroupNorm with SiLU behind it in one operation, and its gradient: ``group_norm``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.operands import GroupNorm, GroupNormGradients, Statistics
from fastlangevin.memory import in_memory, transforms
from fastlangevin.ops.arguments import compute_dtype, floating, same_place
from fastlangevin.ops.normalisation import empty_results, layout_of, needs_plain_backward
from fastlangevin.ops.operation import Operation
from fastlangevin.runtime import Launchers, choose
from fastlangevin.values import real, shown

__all__ = ["group_norm"]


def _image(x: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """As the launchers take it: ``(B, C, H, W)`` in one of the two layouts."""
    x = x.contiguous(memory_format=layout)
    return x if x.ndim == 4 else x.view(*x.shape[:2], -1, 1)


def _forward(
    launchers: Launchers, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, activation: bool
) -> tuple[Tensor, Tensor, Tensor]:
    layout = layout_of(x)
    out, mean, rstd = empty_results(x, layout, groups)
    if x.numel():
        given = GroupNorm(_image(x, layout), weight.contiguous(), bias.contiguous(), groups, activation)
        launchers.group_norm(_image(out, layout), Statistics(mean, rstd), given, eps)
    return out, mean, rstd


def _plain(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, activation: bool
) -> tuple[Tensor, Tensor, Tensor]:
    out, statistics = reference.group_norm(GroupNorm(x, weight, bias, groups, activation), eps)
    return out.contiguous(memory_format=layout_of(x)), *statistics


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor, groups: int, *rest: object) -> tuple[Tensor, ...]:
    return tuple(empty_results(x, layout_of(x), groups))


def _backward(
    launchers: Launchers,
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    activation: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    layout = layout_of(x)
    by_x, by_weight, by_bias = empty_results(x, layout, x.shape[1])
    if x.numel():
        gradients = GroupNormGradients(_image(by_x, layout), by_weight, by_bias)
        statistics = Statistics(mean.contiguous(), rstd.contiguous())
        given = GroupNorm(_image(x, layout), weight.contiguous(), bias.contiguous(), groups, activation)
        launchers.group_norm_backward(gradients, _image(grad_out, layout), given, statistics)
    return by_x, by_weight, by_bias


def _plain_backward(grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> GroupNormGradients:
    mean, rstd, groups, activation = rest
    given = GroupNorm(x, weight, bias, groups, activation)
    return reference.group_norm_backward(grad_out, given, Statistics(mean, rstd))


def _fake_backward(grad_out: Tensor, x: Tensor, *rest: object) -> tuple[Tensor, ...]:
    return tuple(empty_results(x, layout_of(x), x.shape[1]))


_NORM = Operation(
    "group_norm(Tensor x, Tensor weight, Tensor bias, int groups, float eps, bool activation) "
    "-> (Tensor, Tensor, Tensor)",
    _forward,
    plain=_plain,
    fake=_fake_forward,
)
_GRADIENT = Operation(
    "group_norm_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, int groups, "
    "bool activation) -> (Tensor, Tensor, Tensor)",
    _backward,
    plain=_plain_backward,
    fake=_fake_backward,
)


class _GroupNorm(torch.autograd.Function):
    """The norm with its gradients. Second derivatives, and batched ones, go through plain PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
        *options, impl = rest
        out: Tensor
        out, mean, rstd = _NORM(impl, x.device, x, weight, bias, *options)
        ctx.options = rest
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, *derivatives: Tensor) -> tuple[Tensor | None, ...]:
        (grad_out,) = derivatives
        x, weight, bias, mean, rstd = ctx.saved_tensors
        groups, eps, activation, impl = ctx.options
        if needs_plain_backward(grad_out):
            # The statistics again, this time as functions of x.
            given = GroupNorm(x, weight, bias, groups, activation)
            results = reference.group_norm_backward(grad_out, given, reference.group_statistics(x, groups, eps))
        else:
            grad_out = in_memory("the derivative", grad_out)
            results = _GRADIENT(impl, x.device, grad_out, x, weight, bias, mean, rstd, groups, activation)
        by_x, *by_parameters = results
        wanted, *others = ctx.needs_input_grad
        gradients = [by.sum(0) if need else None for by, need in zip(by_parameters, others, strict=False)]
        return by_x if wanted else None, *gradients, None, None, None, None


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: bool = False,
    impl: str = "auto",
) -> Tensor:
    """GroupNorm (Wu and He 2018), and SiLU behind it where that is wanted, as the networks of Song et al. 2021 have it.

    Computed in fp32 (fp64 for an fp64 input) as :mod:`fastlangevin.reference.group_norm` writes it, and rounded once.
    The result of a sample depends on no other, and the kernels give it the same bits in any batch. Differentiable in
    all tensors; twice, by ``torch.func`` and in forward mode, too, where plain PyTorch computes it.

    Args:
        x: ``(B, C, ...)`` with at least one element in each group of a sample: float32, float16, bfloat16 or float64.
        groups: into how many groups of neighbours the channels are taken, a divisor of C.
        weight: scale of the channels, ``(C,)``, any float dtype; None for 1.
        bias: shift of the channels, likewise; None for 0.
        eps: added to the variance of a group, not negative.
        activation: whether SiLU follows the norm: out = y / (1 + exp(-y)).
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        Same shape and dtype as ``x``, channels_last where a 4-dimensional ``x`` is and contiguous otherwise.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or device.
        RuntimeError: ``impl`` cannot run here.
    """
    x = floating("x", x)
    if x.ndim < 2 or math.prod(x.shape[1:]) < 1:
        raise ValueError(f"x must be (B, C, ...) with at least one channel and one element in it, got {tuple(x.shape)}")
    _check_options(groups, eps, x)
    channels, dtype = x.shape[1], compute_dtype(x)
    parameters: list[Tensor] = []
    for name, parameter, neutral in (("weight", weight, 1.0), ("bias", bias, 0.0)):
        if parameter is None:
            parameters.append(x.new_full((channels,), neutral, dtype=dtype))
            continue
        parameter = floating(name, parameter)
        same_place(name, parameter, x)
        if parameter.shape != (channels,):
            raise ValueError(
                f"{name} must be ({channels},), one number for each channel of x of shape {tuple(x.shape)}, got "
                f"{tuple(parameter.shape)}"
            )
        parameters.append(parameter if parameter.dtype == dtype else parameter.to(dtype))
    options = groups, eps, activation
    if not torch.compiler.is_compiling():
        # Plain PyTorch is the gradient of the reference, but not for an empty batch, of whose statistics it warns.
        if (choose(impl, x.device)[0] == "reference" and x.numel()) or transforms():
            weight, bias = parameters
            plain, *_ = _plain(x, weight, bias, *options)
            return plain
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters))):
            out: Tensor
            out, *_ = _NORM(impl, x.device, x, *parameters, *options)
            return out
    result: Tensor = _GroupNorm.apply(x, *parameters, *options, impl)
    return result


def _check_options(groups: Any, eps: Any, x: Tensor) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"groups must be an integer, got {shown(groups)} ({type(groups).__name__})")
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(
            f"groups must divide the channels of x into equal groups: a positive divisor of {x.shape[1]}, got "
            f"{shown(groups)}"
        )
    if isinstance(eps, bool) or not isinstance(eps, int | float):
        raise TypeError(f"eps must be a number, got {shown(eps)} ({type(eps).__name__})")
    eps = real("eps", eps, "a number")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and not negative, got {shown(eps)}; 1e-5 is usual")
