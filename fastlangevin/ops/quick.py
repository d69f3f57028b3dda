"""The quick way of plain calls, and the one place that recognises them.

A call is plain if its tensors are fp32 and contiguous, lie in the CPU's memory and hold their values there, if its
numbers are Python's own and in range, if no gradient is asked for and nothing watches it. Such a call goes to the C++
library at once, whatever its size: with few elements the general way, which checks, chooses and packs, takes longer
than the work. Every function returns None for a call that is not plain, before anything is written or drawn, and the
caller goes the general way, which also words the errors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address, Words
from fastlangevin.kernels.operands import Objective, Sums
from fastlangevin.memory import observed
from fastlangevin.noise import MAX_DRAW, MAX_ELEMENTS, MAX_SAMPLE_ID, MAX_SEED
from fastlangevin.ops.arguments import MAX_LEVELS, elements_per_sample
from fastlangevin.reference import segment_elements
from fastlangevin.runtime import choose_for

__all__ = ["is_plain", "objective", "perturb", "placed", "random", "step", "words"]

MAX_FP32 = torch.finfo(torch.float32).max
# Looked up at every small call.
_FLOAT32, _INT64, _STRIDED = torch.float32, torch.int64, torch.strided
_increment_version = torch._C._increment_version


def words(
    purpose: int,
    /,
    *,
    seed: Any = None,
    draw: Any = 0,
    sample_ids: Any = None,
    sample_offset: Any = 0,
    **others: object,
) -> Words | None:
    """The address of a call whose seed, draw and offset are ints in range; the ids are still to be looked at."""
    if (
        type(seed) is int
        and type(draw) is int
        and type(sample_offset) is int
        and not others
        and 0 <= seed <= MAX_SEED
        and 0 <= draw <= MAX_DRAW
        and 0 <= sample_offset <= MAX_SAMPLE_ID // 2
        and (sample_ids is None or not sample_offset)
    ):
        return seed, draw, sample_ids, sample_offset, purpose
    return None


def placed(address: Address) -> Words | None:
    """An address that was resolved, if its seed and draw are numbers."""
    seed, draw, ids, offset, purpose = address
    if type(seed) is int and type(draw) is int and (ids is None or (ids.is_cpu and ids.is_contiguous())):
        return seed, draw, ids, offset, purpose
    return None


def _are_ids(ids: Any, batch: int) -> bool:
    if not (_is_plain_list(ids, batch) and ids.data_ptr()):
        return False
    low, high = ids.aminmax()
    return bool(low >= 0 and high <= MAX_SAMPLE_ID)


def _is_plain_list(numbers: Any, length: int) -> bool:
    """Returns whether ``numbers`` is a plain int64 tensor ``(length,)``, with a length of 1 or more."""
    return (
        type(numbers) is Tensor
        and numbers.dtype is _INT64
        and numbers.is_cpu
        and numbers.layout is _STRIDED
        and numbers.ndim == 1
        and numbers.shape[0] == length > 0
        and numbers.is_contiguous()
        and not numbers.is_neg()
    )


def is_plain(each: Any) -> bool:
    """Returns whether a tensor is a contiguous fp32 one in the CPU's memory, apart from its gradient."""
    return (
        type(each) is Tensor
        and each.dtype is _FLOAT32
        and each.is_cpu
        and each.layout is _STRIDED
        and each.is_contiguous()
        and not each.is_neg()
    )


def _plain(*tensors: Any) -> bool:
    """Returns whether all are as :func:`is_plain` says, without a gradient. Not for a compiler to look into."""
    for each in tensors:
        if not (
            type(each) is Tensor
            and each.dtype is _FLOAT32
            and each.is_cpu
            and each.layout is _STRIDED
            and not (each.requires_grad and torch.is_grad_enabled())
            and each.is_contiguous()
            and not each.is_neg()
        ):
            return False
    return True


def step(
    out: Tensor | None,
    x: Tensor,
    score: Any,
    factors: tuple[Any, Any, Any],
    place: Words | None,
    watch: Any,
    impl: str,
    *,
    resolved: bool = False,
) -> Tensor | None:
    """An update of a state and a score with one draw.

    Args:
        out: written and returned: ``x``, or a tensor of its shape; None for a new one.
        x, score: the state and its score.
        factors: c, a and b.
        place: the address of the noise; None if :func:`words` gave none.
        watch: the record of faults, which was checked, or None; and whether samples with a fault are left as they are.
        impl: the implementation.
        resolved: whether the ids were looked at before.
    """
    if place is None:
        return None
    c, a, b = factors
    _, _, ids, _, _ = place
    if not (
        type(a) is float
        and type(b) is float
        and type(c) is float
        and -MAX_FP32 <= a <= MAX_FP32
        and -MAX_FP32 <= b <= MAX_FP32
        and -MAX_FP32 <= c <= MAX_FP32
        and type(x) is Tensor
        and x.dtype is _FLOAT32
        and x.is_cpu
        and x.ndim
        and not observed()
        and (_plain(x, score) if out is None or out is x else _plain(x, score, out) and not out.requires_grad)
        and x.shape == score.shape
        and (out is None or out.shape == x.shape)
        and (ids is None or resolved or _are_ids(ids, x.shape[0]))
    ):
        return None
    quick = choose_for(impl, "cpu")[1].quick_step
    done: Tensor | None = None if quick is None else quick(out, x, score, factors, place, watch)
    # Autograd sees no write through a pointer.
    if done is not None and out is not None and not out.is_inference():
        _increment_version([out])
    return done


def random(shape: Any, device: Any, uniform: bool, place: Words | None, impl: str) -> Tensor | None:
    """Normals, or uniforms, in fp32.

    Args:
        shape, device, impl: as the user gave them.
        uniform: whether uniforms are wanted.
        place: the address; None if :func:`words` gave none.
    """
    if place is None or not (type(shape) is tuple or type(shape) is torch.Size) or not shape:
        return None
    if not (device is None or device == "cpu" or (type(device) is torch.device and device.type == "cpu")):
        return None
    elements = 1
    for size in shape:
        if not (type(size) is int and size > 0):
            return None
        elements *= size
    _, _, ids, _, _ = place
    if elements > MAX_ELEMENTS or observed() or not (ids is None or _are_ids(ids, shape[0])):
        return None
    quick = choose_for(impl, "cpu")[1].quick_randn
    if quick is None:
        return None
    out = torch.empty(shape, dtype=_FLOAT32, device=device)
    if not (type(out) is Tensor and out.is_cpu):
        return None
    quick(out, uniform, place)
    return out


def perturb(
    x: Any,
    sigmas: Any,
    labels: Tensor | None,
    level_purpose: int,
    place: Words | None,
    impl: str,
    *,
    out: Tensor | None = None,
    resolved: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """Samples at their noise levels, and the levels: those that were given, or drawn ones.

    Args:
        x, sigmas, impl: as the user gave them.
        labels: likewise; or None.
        level_purpose: of the address of drawn levels.
        place: the address of the noise; None if :func:`words` or :func:`placed` gave none.
        out: written, as plain as the samples and of their shape; None for a new tensor.
        resolved: whether the ids and the labels were looked at before.
    """
    if place is None:
        return None
    _, _, ids, _, _ = place
    if not (
        type(x) is Tensor
        and x.dtype is _FLOAT32
        and x.is_cpu
        and x.ndim
        and not observed()
        and _plain(x, sigmas)
        and sigmas.ndim == 1
        and 0 < x.nbytes <= MAX_ELEMENTS
        and 0 < sigmas.shape[0] <= MAX_LEVELS
        and (ids is None or resolved or _are_ids(ids, x.shape[0]))
        and (labels is None or _is_plain_list(labels, x.shape[0]))
    ):
        return None
    if labels is not None and not resolved:
        low, high = labels.aminmax()
        if low < 0 or high >= sigmas.shape[0]:
            return None
    quick = choose_for(impl, "cpu")[1].quick_perturb
    done: tuple[Tensor, Tensor] | None = None if quick is None else quick(x, sigmas, labels, level_purpose, place, out)
    if done is not None and out is not None:
        _increment_version([out])
    return done


def objective(
    given: Objective, upstream: Tensor, impl: str, *, sums: bool, gradient: bool
) -> tuple[Sums | None, Tensor | None] | None:
    """The values of an objective and their sums, if ``sums``, and its gradient by the output, if ``gradient``.

    Args:
        given: the objective, which was checked.
        upstream: the derivative of the loss by the values.
        impl: the implementation.
        sums, gradient: what is wanted.
    """
    output, labels, _, address, noise, clean = given
    place = placed(address)
    if (
        place is None
        or noise is not None
        or observed()
        or not (_plain(output) if clean is None else _plain(output, clean))
        or not (labels.is_contiguous() and upstream.is_contiguous())
        or not output.nbytes
    ):
        return None
    quick = choose_for(impl, "cpu")[1].quick_dsm
    if quick is None:
        return None
    segment = segment_elements(elements_per_sample(output.shape))
    derivative = torch.empty_like(output) if gradient else None
    done: tuple[Sums | None, Tensor | None] | None = quick(given, upstream, segment, place, sums, derivative)
    return done
