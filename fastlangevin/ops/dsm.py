"""The denoising score matching objective, its sums by level and its gradient in one pass: ``dsm``."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastlangevin import reference
from fastlangevin.noise import Purpose, tensor_word
from fastlangevin.ops.arguments import elements_per_sample
from fastlangevin.ops.memory import address_in_memory, in_memory, recorded, transforms
from fastlangevin.ops.normalisation import needs_plain_backward
from fastlangevin.ops.operation import ADDRESS, register, sample_numbers
from fastlangevin.ops.rescale import rescale_
from fastlangevin.runtime import choose

__all__ = ["Address", "Reduction", "Tables", "dsm"]

Reduction = Literal["mean", "sum", "none"]


class Tables(NamedTuple):
    """What an objective is at each level, ``(L,)`` each, in the dtype it is computed in.

    Attributes:
        scale: p of the residual p h + z, or of p (h - x).
        weight: w of the value w / 2 ||residual||^2.
        slope: p w, the derivative's factor.
    """

    scale: Tensor
    weight: Tensor
    slope: Tensor


class Address(NamedTuple):
    """Where the noise of a batch stands, as :mod:`fastlangevin.noise` resolves it; or the noise itself."""

    seed: int | Tensor
    draw: int | Tensor
    sample_ids: Tensor | None
    sample_offset: int
    noise: Tensor | None = None


class _Result(NamedTuple):
    values: Tensor
    level_sums: Tensor
    level_counts: Tensor
    total: Tensor
    gradient: Tensor


def _dsm(
    output: Tensor,
    labels: Tensor,
    scale: Tensor,
    weight: Tensor,
    slope: Tensor,
    upstream: Tensor,
    clean: Tensor | None,
    seed: int | Tensor,
    draw: int | Tensor,
    sample_ids: Tensor | None,
    sample_offset: int,
    noise: Tensor | None,
    sums: bool,
    gradient: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    result = _empty(output, scale, sums, gradient)
    launchers = choose(impl, output.device)[1]
    if launchers is not None:
        launchers.dsm(
            result.values if sums else None,
            result.level_sums if sums else None,
            result.level_counts if sums else None,
            result.total if sums else None,
            result.gradient if gradient else None,
            output,
            clean=clean,
            labels=labels.contiguous(),
            scale=scale,
            weight=weight,
            slope=slope,
            upstream=upstream.contiguous(),
            seed=seed,
            draw=draw,
            sample_ids=sample_ids,
            sample_offset=sample_offset,
            purpose=Purpose.DSM_NOISE,
            noise=noise,
            segment=reference.segment_elements(elements_per_sample(output.shape)),
        )
        return result
    tables = Tables(scale, weight, slope)
    address = Address(seed, draw, sample_ids, sample_offset, noise)
    found = _plain(output, labels, tables, upstream, clean, address, gradient)
    for to, value in zip(result, found, strict=True):
        if value is not None and to.numel():
            to.copy_(value)
    return result


def _plain(
    output: Tensor,
    labels: Tensor,
    tables: Tables,
    upstream: Tensor,
    clean: Tensor | None,
    address: Address,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The objective in plain PyTorch, which every transform sees into."""
    seed, draw, sample_ids, sample_offset, noise = address
    if noise is None and clean is None:
        ids = sample_numbers(sample_ids, sample_offset, output.shape[0], output.device)
        elements = elements_per_sample(output.shape)
        noise = reference.randn(elements, ids, seed=seed, draw=draw, purpose=Purpose.DSM_NOISE).view(output.shape)
    return reference.dsm(output, labels, *tables, upstream, clean=clean, noise=noise, gradient=gradient)


def _empty(output: Tensor, scale: Tensor, sums: bool, gradient: bool) -> _Result:
    """The results to be filled; what is not wanted has no elements."""
    levels = scale.numel()
    return _Result(
        values=scale.new_empty(output.shape[0] if sums else 0),
        level_sums=scale.new_empty(levels if sums else 0),
        level_counts=scale.new_empty(levels if sums else 0, dtype=torch.int64),
        total=scale.new_empty(() if sums else (0,)),
        gradient=torch.empty_like(output) if gradient else output.new_empty(0),
    )


def _fake(output: Tensor, labels: Tensor, scale: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    sums, gradient = rest[-3:-1]
    return _empty(output, scale, sums, gradient)


register(
    "dsm(Tensor output, Tensor labels, Tensor scale, Tensor weight, Tensor slope, Tensor upstream, Tensor? clean, "
    f"{ADDRESS}, Tensor? noise, bool sums, bool gradient, str impl) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _dsm,
    _fake,
)


def _call(output: Tensor, upstream: Tensor, clean: Tensor | None, *rest: Any) -> _Result:
    """``rest``: labels, the three tables, the address's five parts, and the last three arguments of the operation."""
    labels, scale, weight, slope, *others = rest
    operation = torch.ops.fastlangevin.dsm if recorded() else _dsm
    return _Result(*operation(output, labels, scale, weight, slope, upstream, clean, *others))


def _savable(value: Tensor | None) -> Tensor | None:
    """A tensor that autograd saves: data made under inference mode are copied."""
    inference = value is not None and value.is_inference() and not torch.is_inference_mode_enabled()
    return value.clone() if value is not None and inference else value


class _Loss(torch.autograd.Function):
    """The reduced loss, with its gradient made in the same pass where that loses nothing.

    The gradient of a mean or a sum is known but for one factor, the derivative of what the caller makes of the loss. It
    is made with the factor 1, and scaled in place where the factor turns out to be another. A float16 gradient could
    lose small values before a gradient scaler's factor reaches it, and with ``"none"`` each sample has a factor: those
    are made in the backward pass, from the network's output and the noise's address, and so is a second backward's.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, clean: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        *arguments, reduction, impl = rest
        batch = output.shape[0]
        share = arguments[1].new_full((), 1 / batch if reduction == "mean" else 1.0)
        early = any(ctx.needs_input_grad[:2]) and reduction != "none" and output.dtype != torch.float16
        result = _call(output, share, clean, *arguments, True, early, impl)
        ctx.options = early, impl
        ctx.numbers = [None if isinstance(each, Tensor) else each for each in arguments]
        tensors = [each if isinstance(each, Tensor) else None for each in arguments]
        # Outside of a compiled program the gradient is not a saved tensor: it is scaled in place, and given away.
        compiling = torch.compiler.is_compiling()
        ctx.gradient = None if compiling or not early else result.gradient
        kept = output, clean, share, result.gradient if compiling and early else None, *tensors
        ctx.save_for_backward(*(kept if compiling else map(_savable, kept)))
        ctx.mark_non_differentiable(result.level_sums, result.level_counts)
        loss = result.values if reduction == "none" else result.total * share
        return loss, result.level_sums, result.level_counts

    @staticmethod
    def backward(ctx: Any, *derivatives: Tensor) -> tuple[Tensor | None, ...]:
        if needs_plain_backward(derivatives[0]):
            raise RuntimeError(
                "the denoising score matching loss is differentiable once, but create_graph=True, or a transform at "
                "work in the backward pass, such as is_grads_batched=True, asks for the graph of its gradient; write "
                "the loss out with fastlangevin.perturb for second derivatives, or make it inside of the transform"
            )
        derivative = in_memory("the derivative of the loss", derivatives[0])
        early, impl = ctx.options
        output, clean, share, gradient, *tensors = ctx.saved_tensors
        arguments = [each if each is not None else number for each, number in zip(tensors, ctx.numbers, strict=True)]
        if gradient is not None:
            gradient = gradient * derivative
        elif early:
            gradient, ctx.gradient = ctx.gradient, None
            if gradient is None:
                gradient = _call(output, share, clean, *arguments, False, True, impl).gradient
            rescale_(gradient, derivative, impl)
        else:
            upstream = derivative * share
            gradient = _call(output, upstream, clean, *arguments, False, True, impl).gradient
        wanted = ctx.needs_input_grad
        by_clean = gradient.neg().to(clean.dtype) if clean is not None and wanted[1] else None
        return gradient if wanted[0] else None, by_clean, *(None,) * (len(arguments) + 2)


def dsm(
    output: Tensor,
    labels: Tensor,
    tables: Tables,
    address: Address,
    *,
    clean: Tensor | None = None,
    reduction: Reduction = "mean",
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """The objective of a batch whose noise :func:`fastlangevin.perturb` drew, which is drawn again here and not stored.

    Differentiable once in ``output`` and ``clean``. The arguments are those that :mod:`fastlangevin.losses` makes; they
    are not checked.

    Args:
        output: what the network returned, h ``(B, *)``, B at least 1, any float dtype.
        labels: int64 ``(B,)``.
        tables: of the objective, in fp64 for an fp64 output and fp32 otherwise.
        address: of the noise.
        clean: the samples, same shape, where h predicts them: the residual is p (h - x) and not p h + z.
        reduction: ``"mean"`` over the batch, ``"sum"`` or ``"none"``.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

    Returns:
        The loss, ``()`` or ``(B,)``; the sums of the samples' values by level ``(L,)``; the number of samples at each
        level, int64 ``(L,)``.
    """
    output = in_memory("output", output)
    clean = None if clean is None else in_memory("clean", clean)
    seed, draw, ids = address_in_memory(*address[:3])
    place = ids, address.sample_offset, address.noise
    if transforms():
        choose(impl, output.device)
        share = tables.scale.new_full((), 1 / output.shape[0] if reduction == "mean" else 1.0)
        values, sums, counts, total, _ = _plain(
            output, labels, tables, share, clean, Address(seed, draw, *place), gradient=False
        )
        return values if reduction == "none" else total * share, sums.detach(), counts
    if recorded():
        seed, draw = tensor_word(seed, output), tensor_word(draw, output)
        if draw is seed:
            draw = draw.clone()  # PyTorch 2.13 traces no function that is given one tensor twice
    results: tuple[Tensor, Tensor, Tensor] = _Loss.apply(
        output, clean, labels, *tables, seed, draw, *place, reduction, impl
    )
    return results
