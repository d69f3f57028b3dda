"""InstanceNorm++ with its ELU and a residual in one operation, and its gradient: ``instance_norm``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.ops.arguments import compute_dtype, floating, same_place
from fastlangevin.ops.launch import register
from fastlangevin.ops.normalising import empty_results, fill, layout_of, needs_plain_backward, transforms
from fastlangevin.runtime import choose

__all__ = ["instance_norm"]


def _rows(parameter: Tensor, x: Tensor) -> Tensor:
    """A row for each sample, those of one row for all being the same memory."""
    parameter = parameter if parameter.stride(-1) == 1 else parameter.contiguous()
    return parameter.expand(x.shape[0], x.shape[1])


def _empty(x: Tensor, count: int) -> list[Tensor]:
    """A tensor as ``x``, and ``count`` of shape ``(B, C)`` in the computing dtype."""
    return empty_results(x, *[x.shape[:2]] * count)


def _forward(
    x: Tensor, residual: Tensor | None, gamma: Tensor, alpha: Tensor, beta: Tensor, activation: bool, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    launchers = choose(impl, x.device)[1]
    out, mean, rstd = results = _empty(x, 2)
    if x.numel() == 0:
        return out, mean, rstd
    if launchers is None or launchers.instance_norm is None:
        found = reference.instance_norm(x, gamma, alpha, beta, residual=residual, activation=activation)
        fill(results, found)
        return out, mean, rstd
    layout = layout_of(x)
    launchers.instance_norm(
        out,
        x.contiguous(memory_format=layout),
        None if residual is None else residual.contiguous(memory_format=layout),
        _rows(gamma, x),
        _rows(alpha, x),
        _rows(beta, x),
        mean,
        rstd,
        activation=activation,
    )
    return out, mean, rstd


def _fake_forward(x: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
    out, mean, rstd = _empty(x, 2)
    return out, mean, rstd


def _backward(
    grad_out: Tensor,
    x: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    activation: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    launchers = choose(impl, x.device)[1]
    by_x, by_gamma, by_alpha, by_beta = results = _empty(x, 3)
    if x.numel() == 0:
        return by_x, by_gamma, by_alpha, by_beta
    if launchers is None or launchers.instance_norm_backward is None:
        found = reference.instance_norm_backward(grad_out, x, gamma, alpha, beta, mean, rstd, activation=activation)
        fill(results, found)
        return by_x, by_gamma, by_alpha, by_beta
    layout = layout_of(x)
    launchers.instance_norm_backward(
        *results,
        grad_out.contiguous(memory_format=layout),
        x.contiguous(memory_format=layout),
        _rows(gamma, x),
        _rows(alpha, x),
        _rows(beta, x),
        mean.contiguous(),
        rstd.contiguous(),
        activation=activation,
    )
    return by_x, by_gamma, by_alpha, by_beta


def _fake_backward(grad_out: Tensor, x: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_x, by_gamma, by_alpha, by_beta = _empty(x, 3)
    return by_x, by_gamma, by_alpha, by_beta


register(
    "instance_norm(Tensor x, Tensor? residual, Tensor gamma, Tensor alpha, Tensor beta, bool activation, str impl) "
    "-> (Tensor, Tensor, Tensor)",
    _forward,
    _fake_forward,
)
register(
    "instance_norm_backward(Tensor grad_out, Tensor x, Tensor gamma, Tensor alpha, Tensor beta, Tensor mean, "
    "Tensor rstd, bool activation, str impl) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)


class _Norm(torch.autograd.Function):
    """The norm with its gradients. Second derivatives, and batched ones, go through plain PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, *rest: Any) -> Tensor:
        gamma, alpha, beta, activation, impl = rest
        operation = torch.ops.fastlangevin.instance_norm if torch.compiler.is_compiling() else _forward
        out: Tensor
        out, mean, rstd = operation(x, residual, gamma, alpha, beta, activation, impl)
        ctx.options = activation, impl
        ctx.save_for_backward(x, gamma, alpha, beta, mean, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, *derivatives: Tensor) -> tuple[Tensor | None, ...]:
        (grad_out,) = derivatives
        x, gamma, alpha, beta, mean, rstd = ctx.saved_tensors
        activation, impl = ctx.options
        if needs_plain_backward(grad_out):
            # The statistics again, this time as functions of x.
            mean, rstd = reference.statistics(x)
            results = reference.instance_norm_backward(
                grad_out, x, gamma, alpha, beta, mean, rstd, activation=activation
            )
        else:
            operation = torch.ops.fastlangevin.instance_norm_backward if torch.compiler.is_compiling() else _backward
            results = operation(grad_out, x, gamma, alpha, beta, mean, rstd, activation, impl)
        wanted = ctx.needs_input_grad
        gradients: list[Tensor | None] = [results[0] if wanted[0] else None, grad_out if wanted[1] else None]
        for parameter, gradient, needed in zip((gamma, alpha, beta), results[1:], wanted[2:5], strict=True):
            gradients.append((gradient.sum(0) if parameter.ndim == 1 else gradient) if needed else None)
        return *gradients, None, None


def instance_norm(
    x: Tensor,
    gamma: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    residual: Tensor | None = None,
    activation: bool = False,
    impl: str = "auto",
) -> Tensor:
    """InstanceNorm++ (Song and Ermon 2019, appendix A), ELU behind it where that is wanted, and a residual added.

    Computed in fp32 (fp64 for an fp64 input) as :mod:`fastlangevin.reference.norm` writes it, and rounded once. The
    result of a sample depends on no other, and is the same bits for any batch and number of threads. Differentiable in
    all tensors; twice, by ``torch.func`` and in forward mode, too, where plain PyTorch computes it.

    Args:
        x: ``(B, C, H, W)`` with C > 1 and at least one pixel: float32, float16, bfloat16 or float64.
        gamma: scale, ``(C,)`` or ``(B, C)``, any float dtype.
        alpha: weight of the channels' means, likewise.
        beta: shift, likewise.
        residual: added to the result, shape and dtype of ``x``.
        activation: whether ELU follows the norm: out where out > 0, exp(out) - 1 otherwise.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        Same shape and dtype as ``x``, channels_last where ``x`` is and contiguous otherwise.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or device.
        RuntimeError: ``impl`` cannot run here.
    """
    floating("x", x)
    if x.ndim != 4 or x.shape[1] < 2 or x.shape[2] * x.shape[3] < 1:
        raise ValueError(
            f"x must be (B, C, H, W) with at least 2 channels and a pixel, got {tuple(x.shape)}; of one channel the "
            "spread of the channels' means is not defined"
        )
    dtype, shapes = compute_dtype(x), (x.shape[1:2], x.shape[:2])
    parameters: list[Tensor] = []
    for name, parameter in (("gamma", gamma), ("alpha", alpha), ("beta", beta)):
        floating(name, parameter)
        same_place(name, parameter, x)
        if parameter.shape not in shapes:
            raise ValueError(
                f"{name} must be ({x.shape[1]},) or ({x.shape[0]}, {x.shape[1]}) for x of shape {tuple(x.shape)}, got "
                f"{tuple(parameter.shape)}"
            )
        parameters.append(parameter if parameter.dtype == dtype else parameter.to(dtype))
    if residual is not None:
        floating("residual", residual)
        same_place("residual", residual, x)
        if residual.shape != x.shape or residual.dtype != x.dtype:
            raise ValueError(
                f"residual must match x, {tuple(x.shape)} and {x.dtype}, got {tuple(residual.shape)} and "
                f"{residual.dtype}"
            )
    if not torch.compiler.is_compiling():
        launchers = choose(impl, x.device)[1]
        # An empty batch, of whose statistics PyTorch warns, is the operation's.
        if (x.numel() and (launchers is None or launchers.instance_norm is None)) or transforms():
            out = reference.instance_norm(x, *parameters, residual=residual, activation=activation)[0]
            return out.contiguous(memory_format=layout_of(x))
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in (x, residual, *parameters) if t is not None)):
            return _forward(x, residual, parameters[0], parameters[1], parameters[2], activation, impl)[0]
    result: Tensor = _Norm.apply(x, residual, *parameters, activation, impl)
    return result
