"""The denoising score matching objective, its sums by level and its gradient in one pass: ``dsm``."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import Address
from fastlangevin.kernels.operands import Objective, Sums, Tables
from fastlangevin.memory import in_memory, recorded, transforms
from fastlangevin.ops import quick
from fastlangevin.ops.arguments import elements_per_sample
from fastlangevin.ops.normalisation import needs_plain_backward
from fastlangevin.ops.operation import ADDRESS, Operation, flat_address
from fastlangevin.ops.rescale import rescale_
from fastlangevin.runtime import Launchers

__all__ = ["Reduction", "differentiable_once", "dsm"]

Reduction = Literal["mean", "sum", "none"]


def _launch(
    launchers: Launchers, given: Objective, upstream: Tensor, sums: bool, gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if not given.labels.is_contiguous():
        given = given._replace(labels=given.labels.contiguous())
    found, derivative = _empty(given.output, given.tables.scale, sums, gradient)
    segment = reference.segment_elements(elements_per_sample(given.output.shape))
    wanted = found if sums else None, derivative if gradient else None
    launchers.dsm(*wanted, given, upstream.contiguous(), segment)
    return *found, derivative


def _plain(
    given: Objective, upstream: Tensor, sums: bool, gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The objective in plain PyTorch, which every transform sees into."""
    found, derivative = reference.dsm(given, upstream, gradient=gradient)
    return *found, derivative


def _empty(output: Tensor, scale: Tensor, sums: bool, gradient: bool) -> tuple[Sums, Tensor]:
    """The results to be filled; what is not wanted has no elements."""
    levels = scale.numel()
    found = Sums(
        values=scale.new_empty(output.shape[0] if sums else 0),
        level_sums=scale.new_empty(levels if sums else 0),
        level_counts=scale.new_empty(levels if sums else 0, dtype=torch.int64),
        total=scale.new_empty(() if sums else (0,)),
    )
    return found, torch.empty_like(output) if gradient else output.new_empty(0)


def _fake(output: Tensor, labels: Tensor, scale: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *_, sums, gradient, _ = rest
    found, derivative = _empty(output, scale, sums, gradient)
    return *found, derivative


def _flat(given: Objective, upstream: Tensor, sums: bool, gradient: bool) -> tuple[Any, ...]:
    output, labels, tables, address, noise, clean = given
    return output, labels, *tables, *flat_address(address, output), noise, clean, upstream, sums, gradient


def _objective(
    output: Tensor, labels: Tensor, scale: Tensor, weight: Tensor, slope: Tensor, *rest: Any
) -> tuple[Objective, Any]:
    """An objective of its flat parts, and what comes after them."""
    seed, draw, ids, offset, purpose, noise, clean, *more = rest
    address = Address(seed, draw, ids, offset, purpose)
    return Objective(output, labels, Tables(scale, weight, slope), address, noise, clean), more


def _typed(*flat: Any) -> tuple[Any, ...]:
    given, more = _objective(*flat)
    return given, *more


_DSM = Operation(
    f"dsm(Tensor output, Tensor labels, Tensor scale, Tensor weight, Tensor slope, {ADDRESS}, Tensor? noise, "
    "Tensor? clean, Tensor upstream, bool sums, bool gradient) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _launch,
    plain=_plain,
    fake=_fake,
    flatten=_flat,
    typed=_typed,
)


def _call(
    given: Objective, upstream: Tensor, impl: str, *, sums: bool, gradient: bool
) -> tuple[Sums | None, Tensor | None]:
    done = quick.objective(given, upstream, impl, sums=sums, gradient=gradient)
    if done is not None:
        return done
    *found, derivative = _DSM(impl, given.output.device, given, upstream, sums, gradient)
    return Sums(*found), derivative


def _values(given: Objective, share: Tensor, impl: str, gradient: bool = False) -> tuple[Sums, Tensor | None]:
    """The values of an objective and their sums, and its gradient if that is wanted too."""
    found, derivative = _call(given, share, impl, sums=True, gradient=gradient)
    assert found is not None
    return found, derivative


def _gradient(given: Objective, upstream: Tensor, impl: str) -> Tensor:
    _, derivative = _call(given, upstream, impl, sums=False, gradient=True)
    assert derivative is not None
    return derivative


def _savable(value: Tensor | None) -> Tensor | None:
    """A tensor that autograd saves: data made under inference mode are copied."""
    inference = value is not None and value.is_inference() and not torch.is_inference_mode_enabled()
    return value.clone() if value is not None and inference else value


def differentiable_once(derivative: Tensor) -> None:
    """Raises RuntimeError if the gradient itself is to be differentiated or batched."""
    if needs_plain_backward(derivative):
        raise RuntimeError(
            "the denoising score matching loss is differentiable once, but create_graph=True, or a transform at work "
            "in the backward pass, such as is_grads_batched=True, asks for the graph of its gradient; write the loss "
            "out with fastlangevin.perturb for second derivatives, or make it inside of the transform"
        )


class _Loss(torch.autograd.Function):
    """The reduced loss, with its gradient made in the same pass where that loses nothing.

    The gradient of a mean or a sum is known but for one factor, the derivative of what the caller makes of the loss. It
    is made with the factor 1, and scaled in place where the factor turns out to be another. A float16 gradient could
    lose small values before a gradient scaler's factor reaches it, and with ``"none"`` each sample has a factor: those
    are made in the backward pass, from the network's output and the noise's address, and so is a second backward's.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, clean: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        *parts, reduction, impl = rest
        given, _ = _objective(output, *parts, clean)
        share = _share(given, reduction)
        early = any(ctx.needs_input_grad[:2]) and reduction != "none" and output.dtype != torch.float16
        found, derivative = _values(given, share, impl, early)
        ctx.options = early, impl
        ctx.numbers = [None if isinstance(each, Tensor) else each for each in parts]
        tensors = [each if isinstance(each, Tensor) else None for each in parts]
        # Outside of a compiled program the gradient is not a saved tensor: it is scaled in place, and given away.
        compiling = torch.compiler.is_compiling()
        ctx.gradient = None if compiling or not early else derivative
        kept = output, clean, share, derivative if compiling and early else None, *tensors
        ctx.save_for_backward(*(kept if compiling else map(_savable, kept)))
        ctx.mark_non_differentiable(found.level_sums, found.level_counts)
        return _reduced(found, share, reduction)

    @staticmethod
    def backward(ctx: Any, *derivatives: Tensor) -> tuple[Tensor | None, ...]:
        derivative, _, _ = derivatives
        differentiable_once(derivative)
        derivative = in_memory("the derivative of the loss", derivative)
        early, impl = ctx.options
        output, clean, share, gradient, *tensors = ctx.saved_tensors
        parts = [each if each is not None else number for each, number in zip(tensors, ctx.numbers, strict=True)]
        given, _ = _objective(output, *parts, clean)
        if gradient is not None:
            gradient = gradient * derivative
        elif early:
            gradient, ctx.gradient = ctx.gradient, None
            if gradient is None:
                gradient = _gradient(given, share, impl)
            rescale_(gradient, derivative, impl)
        else:
            gradient = _gradient(given, derivative * share, impl)
        by_output, by_clean, *_ = ctx.needs_input_grad
        negative = gradient.neg().to(clean.dtype) if clean is not None and by_clean else None
        return gradient if by_output else None, negative, *(None,) * (len(parts) + 2)


def _share(given: Objective, reduction: Reduction) -> Tensor:
    """The derivative of the loss by the value of a sample."""
    return given.tables.scale.new_full((), 1 / given.output.shape[0] if reduction == "mean" else 1.0)


def _reduced(found: Sums, share: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor, Tensor]:
    return found.values if reduction == "none" else found.total * share, found.level_sums, found.level_counts


def dsm(given: Objective, *, reduction: Reduction = "mean", impl: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """The objective of a batch whose noise :func:`fastlangevin.perturb` drew, which is drawn again here and not stored.

    Differentiable once in ``output`` and ``clean``. The arguments are those that :mod:`fastlangevin.losses` makes; they
    are not checked.

    Args:
        given: the objective; B is at least 1, and its tables are in fp64 for an fp64 output and fp32 otherwise. With
            ``clean`` the residual is p (h - x) and not p h + z.
        reduction: ``"mean"`` over the batch, ``"sum"`` or ``"none"``.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        The loss, ``()`` or ``(B,)``; the sums of the samples' values by level ``(L,)``; the number of samples at each
        level, int64 ``(L,)``.
    """
    output, clean = given.output, given.clean
    address = given.address
    output = in_memory("output", output)
    clean = None if clean is None else in_memory("clean", clean)
    given = given._replace(output=output, clean=clean, address=address)
    if transforms():
        share = _share(given, reduction)
        values, sums, counts, total, _ = _DSM(impl, output.device, given, share, True, False)
        return _reduced(Sums(values, sums.detach(), counts, total), share, reduction)
    if not (torch.is_grad_enabled() and (output.requires_grad or (clean is not None and clean.requires_grad))):
        share = _share(given, reduction)
        found, _ = _values(given, share, impl)
        return _reduced(found, share, reduction)
    if recorded():
        address = flat_address(address, output)
    results: tuple[Tensor, Tensor, Tensor] = _Loss.apply(
        output, clean, given.labels, *given.tables, *address, given.noise, reduction, impl
    )
    return results
