"""InstanceNorm++ of a tensor or a sum, with its ELU in one operation, and its gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.operands import InstanceNorm, InstanceNormGradients, Statistics
from fastlangevin.memory import in_memory, recorded, transforms
from fastlangevin.ops.arguments import check_labels, compute_dtype, floating, same_place
from fastlangevin.ops.normalisation import empty_results, layout_of, needs_plain_backward
from fastlangevin.ops.operation import Operation
from fastlangevin.runtime import Launchers, choose

__all__ = ["add_instance_norm", "instance_norm"]


def _rows(parameter: Tensor, x: Tensor) -> Tensor:
    """A row for each sample, those of one row for all being the same memory."""
    parameter = parameter if parameter.stride(-1) == 1 else parameter.contiguous()
    return parameter.expand(x.shape[0], x.shape[1])


def _forward(
    launchers: Launchers,
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    activation: bool,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """The result, the sum with the residual where there is one, and the statistics.

    With labels, ``gamma``, ``alpha`` and ``beta`` have a row for each level, and the kernels pick those rows.
    """
    layout = layout_of(x)
    out, mean, rstd = empty_results(x, layout, x.shape[1])
    total = None if residual is None else torch.empty_like(out)
    if x.numel():
        if labels is None:
            gamma, alpha, beta = _rows(gamma, x), _rows(alpha, x), _rows(beta, x)
        x = x.contiguous(memory_format=layout)
        residual = None if residual is None else residual.contiguous(memory_format=layout)
        given = InstanceNorm(x, gamma, alpha, beta, activation, residual, labels)
        launchers.instance_norm(out, total, Statistics(mean, rstd), given)
    return out, total, mean, rstd


def _launch_one(launchers: Launchers, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, _, mean, rstd = _forward(launchers, x, None, *rest)
    return out, mean, rstd


def _plain(
    x: Tensor, residual: Tensor | None, gamma: Tensor, alpha: Tensor, beta: Tensor, activation: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The norm in plain PyTorch, with the sum, which is ``x`` itself where there is no residual."""
    layout = layout_of(x)
    out, total, statistics = reference.instance_norm(InstanceNorm(x, gamma, alpha, beta, activation, residual))
    return out.contiguous(memory_format=layout), total.contiguous(memory_format=layout), *statistics


def _plain_one(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, _, mean, rstd = _plain(x, None, *rest)
    return out, mean, rstd


def _fake_one(x: Tensor, *rest: object) -> tuple[Tensor, ...]:
    return tuple(empty_results(x, layout_of(x), x.shape[1]))


def _fake_added(x: Tensor, *rest: object) -> tuple[Tensor, ...]:
    out, *statistics = _fake_one(x)
    return out, torch.empty_like(out), *statistics


def _backward(
    launchers: Launchers,
    grad_out: Tensor,
    x: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    activation: bool,
) -> InstanceNormGradients:
    layout = layout_of(x)
    gradients = InstanceNormGradients(*empty_results(x, layout, x.shape[1], 3))
    if x.numel():
        statistics = Statistics(mean.contiguous(), rstd.contiguous())
        gamma, alpha, beta = _rows(gamma, x), _rows(alpha, x), _rows(beta, x)
        given = InstanceNorm(x.contiguous(memory_format=layout), gamma, alpha, beta, activation)
        launchers.instance_norm_backward(gradients, grad_out.contiguous(memory_format=layout), given, statistics)
    return gradients


def _plain_backward(grad_out: Tensor, *operands: Any) -> InstanceNormGradients:
    x, gamma, alpha, beta, mean, rstd, activation = operands
    given = InstanceNorm(x, gamma, alpha, beta, activation)
    return reference.instance_norm_backward(grad_out, given, Statistics(mean, rstd))


def _fake_backward(grad_out: Tensor, x: Tensor, *rest: object) -> tuple[Tensor, ...]:
    return tuple(empty_results(x, layout_of(x), x.shape[1], 3))


_ONE = Operation(
    "instance_norm(Tensor x, Tensor gamma, Tensor alpha, Tensor beta, bool activation) -> (Tensor, Tensor, Tensor)",
    _launch_one,
    plain=_plain_one,
    fake=_fake_one,
)
_ADDED = Operation(
    "add_instance_norm(Tensor x, Tensor residual, Tensor gamma, Tensor alpha, Tensor beta, bool activation) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    plain=_plain,
    fake=_fake_added,
)
_GRADIENT = Operation(
    "instance_norm_backward(Tensor grad_out, Tensor x, Tensor gamma, Tensor alpha, Tensor beta, Tensor mean, "
    "Tensor rstd, bool activation) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    plain=_plain_backward,
    fake=_fake_backward,
)


def _call(impl: str, x: Tensor, residual: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    if residual is None:
        out, mean, rstd = _ONE(impl, x.device, x, *rest)
        return out, None, mean, rstd
    out, total, mean, rstd = _ADDED(impl, x.device, x, residual, *rest)
    return out, total, mean, rstd


class _Norm(torch.autograd.Function):
    """The norm with its gradients. Second derivatives, and batched ones, go through plain PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, *rest: Any) -> Any:
        gamma, alpha, beta, activation, impl = rest
        out, total, mean, rstd = _call(impl, x, residual, gamma, alpha, beta, activation)
        ctx.options = activation, impl
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x if total is None else total, gamma, alpha, beta, mean, rstd)
        return out if total is None else (out, total)

    @staticmethod
    def backward(ctx: Any, *derivatives: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_out, by_total = (*derivatives, None)[:2]
        x, gamma, alpha, beta, mean, rstd = ctx.saved_tensors
        activation, impl = ctx.options
        x_wanted, residual_wanted, *wanted, _, _ = ctx.needs_input_grad
        if grad_out is None:
            return by_total if x_wanted else None, by_total if residual_wanted else None, *[None] * 5
        if needs_plain_backward(grad_out):
            # The statistics again, this time as functions of x.
            given = InstanceNorm(x, gamma, alpha, beta, activation)
            results = reference.instance_norm_backward(grad_out, given, reference.statistics(x))
        else:
            grad_out = in_memory("the derivative", grad_out)
            results = _GRADIENT(impl, x.device, grad_out, x, gamma, alpha, beta, mean, rstd, activation)
        by_x, *by_parameters = results
        by_x = by_x if by_total is None else by_x + by_total
        gradients: list[Tensor | None] = [by_x if x_wanted else None, by_x if residual_wanted else None]
        for parameter, gradient, needed in zip((gamma, alpha, beta), by_parameters, wanted, strict=True):
            gradients.append((gradient.sum(0) if parameter.ndim == 1 else gradient) if needed else None)
        return *gradients, None, None


def instance_norm(
    x: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    labels: Tensor | None = None,
    activation: bool = False,
    impl: str = "auto",
) -> Tensor:
    """InstanceNorm++ (Song and Ermon 2019, appendix A), and ELU behind it where that is wanted.

    Computed in fp32 (fp64 for an fp64 input) as :mod:`fastlangevin.reference.instance_norm` writes it, and rounded
    once. The result of a sample depends on no other, and is the same bits for any batch and number of threads.
    Differentiable in all tensors; twice, by ``torch.func`` and in forward mode, too, where plain PyTorch computes it.

    Args:
        x: ``(B, C, H, W)`` with C > 1 and at least one pixel: float32, float16, bfloat16 or float64.
        gamma: scale, ``(C,)`` or ``(B, C)``, any float dtype.
        alpha: weight of the channels' means, likewise.
        beta: shift, likewise.
        labels: level of each sample, int64 ``(B,)``; ``gamma``, ``alpha`` and ``beta`` are then tables ``(L, C)`` with
            a row for each level, which the kernel looks up where no gradient is wanted. On a device labels are not
            range-checked: there a sample with one out of range is NaN.
        activation: whether ELU follows the norm: out where out > 0, exp(out) - 1 otherwise.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        Same shape and dtype as ``x``, channels_last where ``x`` is and contiguous otherwise.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or device.
        RuntimeError: ``impl`` cannot run here.
    """
    out, _ = _norm(x, None, gamma, alpha, beta, labels, activation, impl)
    return out


def add_instance_norm(
    x: Tensor,
    residual: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    labels: Tensor | None = None,
    activation: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """:func:`instance_norm` of ``x + residual``, which is added in the same pass and returned, too.

    Args:
        x, gamma, alpha, beta, labels, activation, impl: as there.
        residual: shape and dtype of ``x``.

    Returns:
        The norm of the sum, and the sum itself, both of shape and dtype of ``x``.

    Raises:
        TypeError, ValueError: as there, or ``residual`` does not fit ``x``.
    """
    x, residual = floating("x", x), floating("residual", residual)
    same_place("residual", residual, x)
    if residual.shape != x.shape or residual.dtype != x.dtype:
        raise ValueError(
            f"residual must match x, {tuple(x.shape)} and {x.dtype}, got {tuple(residual.shape)} and {residual.dtype}"
        )
    out, total = _norm(x, residual, gamma, alpha, beta, labels, activation, impl)
    assert total is not None
    return out, total


def _returned(results: tuple[Tensor, Tensor | None, Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    out, total, _, _ = results
    return out, total


def _norm(
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    labels: Tensor | None,
    activation: bool,
    impl: str,
) -> tuple[Tensor, Tensor | None]:
    """The norm, and the sum with the residual where there is one."""
    x = floating("x", x)
    if x.ndim != 4 or x.shape[1] < 2 or x.shape[2] * x.shape[3] < 1:
        raise ValueError(
            f"x must be (B, C, H, W) with at least 2 channels and a pixel, got {tuple(x.shape)}; of one channel the "
            "spread of the channels' means is not defined"
        )
    batch, channels = x.shape[:2]
    shapes: tuple[tuple[int, ...], ...]
    if labels is None:
        shapes, wanted = ((channels,), (batch, channels)), f"({channels},) or ({batch}, {channels})"
    else:
        levels = gamma.shape[0] if isinstance(gamma, Tensor) and gamma.ndim == 2 else 1
        shapes, wanted = ((levels, channels),), f"a table (L, {channels}) of L levels, the same L for all"
        labels = check_labels(labels, batch, levels, values=False)
        same_place("labels", labels, x)
    dtype = compute_dtype(x)
    parameters: list[Tensor] = []
    for name, parameter in (("gamma", gamma), ("alpha", alpha), ("beta", beta)):
        parameter = floating(name, parameter)
        same_place(name, parameter, x)
        if parameter.shape not in shapes:
            raise ValueError(f"{name} must be {wanted} for x of shape {tuple(x.shape)}, got {tuple(parameter.shape)}")
        parameters.append(parameter if parameter.dtype == dtype else parameter.to(dtype))
    differentiable = compiling = torch.compiler.is_compiling()
    if not compiling:
        name, launchers = choose(impl, x.device)
        # Plain PyTorch is the gradient of the reference, but not for an empty batch, of whose statistics it warns.
        if (name == "reference" and x.numel()) or transforms():
            if labels is not None:
                check_labels(labels, batch, levels)
                parameters = [F.embedding(labels, each) for each in parameters]
            gamma, alpha, beta = parameters
            return _returned(_plain(x, residual, gamma, alpha, beta, activation))
        tensors = (x, residual, *parameters)
        differentiable = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in tensors)
        if not differentiable and labels is not None and not recorded():
            gamma, alpha, beta = (each if each.stride(1) == 1 else each.contiguous() for each in parameters)
            return _returned(_forward(launchers, x, residual, gamma, alpha, beta, activation, labels.contiguous()))
    if labels is not None:
        check_labels(labels, batch, levels)
        parameters = [F.embedding(labels, each) for each in parameters]
    if not differentiable:
        return _returned(_call(impl, x, residual, *parameters, activation))
    result = _Norm.apply(x, residual, *parameters, activation, impl)
    return (result, None) if residual is None else result
