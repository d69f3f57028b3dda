"""Writes the results of updates: to a new tensor, to another, or over the state, if it may be written there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastlangevin.kernels.address import Term, Update
from fastlangevin.runtime import Launchers

__all__ = ["check_output", "update_in_place", "update_into", "updated"]

_NOTHING: Any = (None, None)
_increment_version = torch._C._increment_version


def updated(launchers: Launchers, update: Update) -> Tensor:
    """A new tensor with the result of an update."""
    (_, x), *_ = update.terms
    return _written(launchers, torch.empty_like(x), update)


def update_into(launchers: Launchers, out: Tensor, update: Update) -> Tensor:
    """The result of an update in another tensor, which is returned."""
    check_output("out", out, {"x": update.state, **_inputs(update)})
    return _written(launchers, out, update)


def update_in_place(launchers: Launchers, update: Update) -> None:
    """The result of an update in the place of its state."""
    (_, x), (_, score), *others = (*update.terms, _NOTHING)
    if others == [_NOTHING] and update.noise is None and update.mask is None:
        check_output("x", x, {"score": score})
    else:
        check_output("x", x, _inputs(update))
    _written(launchers, x, update)


def _inputs(update: Update) -> dict[str, Tensor | None]:
    """The operands of an update other than its state, by the names that users know."""
    _, *others = update.terms
    if len(others) == 1:
        ((_, score),) = others
        named: dict[str, Tensor | None] = {"score": score}
    else:
        named = {f"score[{place}]": slot for place, (_, slot) in enumerate(others)}
    if update.noise is not None or update.mask is not None:
        named |= {"noise": update.noise, "mask": update.mask, "known": update.known}
    return named


def _written(launchers: Launchers, out: Tensor, update: Update) -> Tensor:
    """Launches an update, and returns its output. A state without dimensions is a batch of one to the launchers."""
    # Before the launch, which returns at once on a device: autograd sees no write through a pointer.
    if not out.is_inference():
        _increment_version([out])
    if not out.ndim:
        launchers.step(out.view(1), _batched(update))
        return out
    return out if 0 in out.shape else launchers.step(out, update)


def _batched(update: Update) -> Update:
    return update._replace(
        terms=tuple(Term(a.expand(1) if isinstance(a, Tensor) else a, slot.view(1)) for a, slot in update.terms),
        b=update.b.expand(1) if isinstance(update.b, Tensor) else update.b,
        noise=None if update.noise is None else update.noise.view(1),
        mask=None if update.mask is None else update.mask.view(1),
        known=None if update.known is None else update.known.view(1),
    )


def _nested(x: Tensor) -> list[tuple[int, int]] | None:
    """(stride, size) of the dimensions longer than 1, inner first; None where one may step onto another."""
    dims = sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1)
    extent = 0
    for stride, size in dims:
        if stride <= extent:
            return None
        extent += stride * (size - 1)
    return dims


def _extent(x: Tensor) -> int:
    if x.is_contiguous():
        return x.numel()
    return sum(stride * (size - 1) for stride, size in zip(x.stride(), x.shape, strict=True)) + 1


def check_output(name: str, out: Tensor, inputs: dict[str, Tensor | None]) -> None:
    """Refuse to write where two elements of ``out`` may share memory, or where it partly overlaps an input."""
    if out.is_contiguous():
        start = out.data_ptr()
        stop = start + out.nbytes
        for named in inputs:
            other = inputs[named]
            if other is None or other is out:
                continue
            if not other.is_contiguous() or (other.data_ptr() < stop and other.data_ptr() + other.nbytes > start):
                break
        else:
            return
    _writable(name, out)
    for other_name, other in inputs.items():
        if other is not None:
            _apart(name, out, other_name, other)


def _writable(name: str, out: Tensor) -> None:
    if out.numel() > 1 and not out.is_contiguous() and _nested(out) is None:
        raise ValueError(
            f"{name} has elements that share memory (shape {tuple(out.shape)}, strides {out.stride()}), so it cannot "
            f"be written in place; pass {name}.clone()"
        )


def _apart(name: str, out: Tensor, other_name: str, other: Tensor) -> None:
    # The very same elements are fine: each is read before it is written.
    if out is other or out.numel() == 0:
        return
    size, other_size = out.element_size(), other.element_size()
    start, other_start = out.data_ptr(), other.data_ptr()
    if start >= other_start + _extent(other) * other_size or other_start >= start + _extent(out) * size:
        return
    if size == other_size and out.shape == other.shape and out.stride() == other.stride():
        distance = abs(start - other_start)
        if distance == 0:
            return
        dims = _nested(out)
        if dims is not None and not _reaches(dims, distance, size):
            return
    raise ValueError(
        f"{name} and {other_name} overlap in memory without being the same elements, so the result would depend on the "
        f"order of writing; pass {other_name}.clone()"
    )


def _reaches(dims: list[tuple[int, int]], distance: int, element_size: int) -> bool:
    """Returns whether two views of the same nested strides, this far apart in bytes, share an element."""
    if distance % element_size:
        return True
    left = {distance // element_size}
    for stride, size in reversed(dims):
        # The rest of the dimensions reach less than one stride either way, so two multiples can lead there.
        left = {rest - stride * k for rest in left for k in (rest // stride, rest // stride + 1) if abs(k) < size}
    return 0 in left
