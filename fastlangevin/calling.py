"""Calls of a caller's score function: it may work in place on what it is given, and it may use autograd.

The first layer of some networks works in place, and the score of an energy is a gradient that autograd takes. Both must
leave the chain alone. Scores that do nothing of the kind must not pay for it by a pass over the state at every update,
nor by the memory of a graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastlangevin.ops.memory import observed

__all__ = ["Guarded", "check_kept", "same_bits", "version", "wrong_shape"]

# What autograd says where gradients are off: of a result without a graph, of hooks and of retain_grad on such a tensor.
NEEDS_GRADIENTS = re.compile(r"require[sd]?[ _]grad")


class Guarded:
    """A function of a state, called so that the state stays as it is and the result is free of it.

    The first call gets copies. If it writes to them, by ``x.data`` too, or returns memory of theirs, every later call
    gets copies as well; otherwise later calls get the tensors themselves, and their version counters are compared. If a
    call fails for want of gradients, it and all later ones are made with gradients enabled. All others are made in the
    caller's mode, so that no graph of a network's weights is kept.

    Inference tensors, whose writes PyTorch does not count, are copied for every call. So is everything that a compiler,
    a transform or a dispatch mode sees.

    Args:
        name: of the function, for errors.
        function: called with the state ``(B, ...)`` and whatever else the call has.
        like_state: whether it must return a tensor of the shape of the state.
    """

    def __init__(self, name: str, function: Callable[..., Tensor], *, like_state: bool = True) -> None:
        self.name = name
        self.function = function
        self.like_state = like_state
        self.tried = False
        self.copies = False
        self.marks = False
        self.differentiates = False

    def __call__(self, x: Tensor, *rest: Any) -> Tensor:
        """The function's result, without a graph unless gradients are enabled.

        Raises:
            RuntimeError: it wrote to what it was given at a later call than its first.
            TypeError, ValueError: its first result is not a tensor, or not of the shape of the state.
        """
        if torch.compiler.is_compiling():
            return self.function(x.clone(), *(each.clone() if isinstance(each, Tensor) else each for each in rest))
        if not self.tried:
            return self._first(x, rest)
        required = x.requires_grad
        value, _ = self._run((x, *rest), _copied if self.copies else self._lent)
        if x.requires_grad and not required:
            x.requires_grad_(False)
            x.grad = None
            self.marks = True
        return value

    def _first(self, x: Tensor, rest: tuple[Any, ...]) -> Tensor:
        given = (x, *rest)
        value, handed = self._run(given, _copied)
        if self.like_state and not isinstance(value, Tensor):
            raise TypeError(f"{self.name} must return a tensor of the shape of x, got {type(value).__name__}")
        if self.like_state and value.shape != x.shape:
            raise ValueError(wrong_shape(self.name, value, x))
        if not observed():
            self.tried = True
            self.marks = handed[0].requires_grad and not x.requires_grad
            self.copies = _share(value, handed) or any(map(_written, given, handed))
        return value

    def _lent(self, each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        if each.is_inference():
            return _copied(each)
        # An alias, so that neither requires_grad nor .grad is left behind.
        return each.detach() if self.marks and not each.requires_grad else each

    def _run(self, given: tuple[Any, ...], hand: Callable[[Any], Any]) -> tuple[Tensor, list[Any]]:
        """The result, and what was handed over for it."""
        before = [version(each) for each in given]
        follows = torch.is_grad_enabled()
        if follows or not self.differentiates:
            handed = [hand(each) for each in given]
            try:
                value = self.function(*handed)
            except RuntimeError as error:
                if follows or NEEDS_GRADIENTS.search(str(error)) is None:
                    raise
                self._check_untouched(given, before)
            else:
                self._check_untouched(given, before)
                return value if follows else _detached(value), handed
        with torch.inference_mode(False), torch.enable_grad():
            handed = [_leaf(hand(each)) for each in given]
            value = _detached(self.function(*handed))
        self._check_untouched(given, before)
        self.differentiates = True
        return value, handed

    def _check_untouched(self, given: tuple[Any, ...], before: list[int]) -> None:
        for index, (each, count) in enumerate(zip(given, before, strict=True)):
            if version(each) != count:
                what = f"argument {index + 1}" if index else "the state"
                raise RuntimeError(
                    f"{self.name} wrote to {what} that it was given, which its first call did not do, so the values "
                    "are lost; let it work on a copy, x.clone(), or out of place, such as with inplace=False"
                )


def version(value: Any) -> int:
    """How often PyTorch has seen writes to a tensor; 0 of what has no such count."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def check_kept(name: str, value: Tensor, count: int, by: str) -> None:
    """Raises where a result that is still needed has been written to, since its :func:`version` was ``count``."""
    if version(value) != count:
        raise RuntimeError(
            f"{by} wrote to the tensor that {name} returned, which is still needed: they share a buffer; let {name} "
            "return a copy, .clone()"
        )


def wrong_shape(name: str, value: Any, x: Tensor) -> str:
    """What to say of a score function that returned something of another shape than the state's."""
    shape = tuple(value.shape) if isinstance(value, Tensor) else None
    found = type(value).__name__ if shape is None else shape
    text = f"{name} must return a score of the shape of x, {tuple(x.shape)}, got {found}"
    if shape in ((), (len(x),), (len(x), 1)):
        text += (
            ". If that is an energy, the score is minus its gradient: x = x.detach().requires_grad_(), then "
            "-torch.autograd.grad(energy(x).sum(), x)[0]; samplers enable gradients for it"
        )
    return text


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one dtype and shape have the same bits, NaN too. Waits for the device."""
    if one.is_floating_point():
        word = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
        one, other = one.detach().view(word), other.detach().view(word)
    return torch.equal(one, other)


def _copied(each: Any) -> Any:
    """A tensor of its own, whose writes are counted."""
    if not isinstance(each, Tensor):
        return each
    if not torch.is_inference_mode_enabled():
        return each.clone()
    with torch.inference_mode(False), torch.no_grad():
        return each.clone()


def _leaf(each: Any) -> Any:
    return each.detach() if isinstance(each, Tensor) else each


def _detached(value: Tensor) -> Tensor:
    return value.detach() if isinstance(value, Tensor) and value.requires_grad else value


def _written(given: Any, handed: Any) -> bool:
    """Whether a copy is no longer what it was made of."""
    if not isinstance(given, Tensor):
        return False
    if handed._version:
        return True
    if given.is_meta or (given.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return not same_bits(given, handed)


def _share(value: Any, handed: list[Any]) -> bool:
    """Whether a result stands in the memory of what was handed over."""
    tensors = [each for each in handed if isinstance(each, Tensor)]
    where = {each.untyped_storage().data_ptr() for each in tensors}
    return isinstance(value, Tensor) and value.layout is torch.strided and value.untyped_storage().data_ptr() in where
