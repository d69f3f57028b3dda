"""Calls of a caller's score function: it may work in place on what it is given, and it may use autograd.

The first layer of some networks works in place, and the score of an energy is a gradient that autograd takes. Both must
leave the chain alone. Scores that do nothing of the kind must not pay for it by a pass over the state at every update,
nor by the memory of a graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fastlangevin.memory import observed
from fastlangevin.ops.writing import check_output

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled

__all__ = ["Guarded", "check_kept", "counted", "same_bits", "version", "wrong_shape"]

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
        function: called as ``function(x)`` or ``function(x, level)``.
        like_state: whether it must return a tensor of the shape of the state.
        in_place: whether the state is updated in place, so that the result must not be a view of other elements of it.
    """

    def __init__(
        self, name: str, function: Callable[..., Tensor], *, like_state: bool = True, in_place: bool = False
    ) -> None:
        self.name = name
        self.function = self.__wrapped__ = function
        self.like_state = like_state
        self.in_place = in_place
        self.tried = False
        self.copies = False
        self.marks = False
        self.differentiates = False
        # Whether the tensors themselves are handed over without more ado.
        self.lends = False

    def __call__(self, x: Tensor, level: Any = None) -> Tensor:
        """The function's result, without a graph unless gradients are enabled.

        Args:
            x: the state ``(B, ...)``.
            level: whatever tells the noise level; None calls the function with the state alone.

        Raises:
            RuntimeError: it wrote to what it was given at a later call than its first.
            TypeError, ValueError: its first result is not a tensor, not of the shape of the state, or a view of it that
                an update in place would change.
        """
        if _is_compiling():
            copies = [each.clone() if isinstance(each, Tensor) else each for each in (x, level) if each is not None]
            return self.function(*copies)
        if not self.lends or _is_grad_enabled():
            return self._carefully(x, level)
        # Every update of a chain comes by here. Version counters never fall, so one sum tells of a write to either.
        try:
            count = x._version if level is None else x._version + level._version
        except (AttributeError, RuntimeError):  # a number; an inference tensor
            return self._carefully(x, level)
        required = x.requires_grad
        try:
            value = self.function(x) if level is None else self.function(x, level)
        except RuntimeError as error:
            if not _asks_for_gradients(error):
                raise
            value = None
        if count != (x._version if level is None else x._version + level._version):
            raise self._overwritten("the state or the level")
        if x.requires_grad is not required:
            self._unmark(x)
        return self._carefully(x, level) if value is None else _detached(value)

    def _carefully(self, x: Tensor, level: Any) -> Tensor:
        given = (x,) if level is None else (x, level)
        if not self.tried:
            return self._first(x, given)
        required = x.requires_grad
        value, _ = self._run(given, _copied if self.copies else self._lent)
        if x.requires_grad and not required:
            self._unmark(x)
        self._decide()
        return value

    def _unmark(self, x: Tensor) -> None:
        x.requires_grad_(False)
        x.grad = None
        self.marks = True
        self._decide()

    def _decide(self) -> None:
        self.lends = self.tried and not (self.copies or self.marks or self.differentiates)

    def _first(self, x: Tensor, given: tuple[Any, ...]) -> Tensor:
        value, handed = self._run(given, _copied)
        if self.like_state and not isinstance(value, Tensor):
            raise TypeError(f"{self.name} must return a tensor of the shape of x, got {type(value).__name__}")
        if self.like_state and value.shape != x.shape:
            raise ValueError(wrong_shape(self.name, value, x))
        if not observed():
            self.tried = True
            self.marks = handed[0].requires_grad and not x.requires_grad
            shares = _share(value, handed[0])
            if shares and self.in_place:
                check_output("x", handed[0], {self.name: value})
            self.copies = shares or any(map(_written, given, handed))
            self._decide()
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
                if follows or not _asks_for_gradients(error):
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
                raise self._overwritten("the level" if index else "the state")

    def _overwritten(self, what: str) -> RuntimeError:
        return RuntimeError(
            f"{self.name} wrote to {what} that it was given, which its first call did not do, so the values are lost; "
            "let it work on a copy, x.clone(), or out of place, such as with inplace=False"
        )


def counted() -> AbstractContextManager[object]:
    """In here new tensors are no inference tensors, so that writes to them are counted and autograd takes them."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def version(value: Any) -> int:
    """Returns how often PyTorch has seen writes to a tensor; 0 of what has no such count."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def check_kept(name: str, value: Tensor, count: int, by: str) -> None:
    """Raises where a result that is still needed has been written to, since its :func:`version` was ``count``."""
    if version(value) != count:
        raise RuntimeError(
            f"{by} wrote to the tensor that {name} returned, which is still needed: they share a buffer; let {name} "
            "return a copy, .clone()"
        )


def wrong_shape(name: str, value: Any, x: Tensor) -> str:
    """Words the error for a score function whose result does not have the shape of the state."""
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
    """Returns whether two tensors of one dtype and shape have the same bits, NaN too. Waits for the device."""
    if one.is_floating_point():
        word = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
        one, other = one.detach().view(word), other.detach().view(word)
    return torch.equal(one, other)


def _copied(each: Any) -> Any:
    """A tensor of its own, whose writes are counted."""
    if not isinstance(each, Tensor):
        return each
    with counted():
        return each.clone()


def _asks_for_gradients(error: RuntimeError) -> bool:
    return NEEDS_GRADIENTS.search(str(error)) is not None


def _leaf(each: Any) -> Any:
    return each.detach() if isinstance(each, Tensor) else each


def _detached(value: Tensor) -> Tensor:
    return value.detach() if getattr(value, "requires_grad", False) else value


def _written(given: Any, handed: Any) -> bool:
    """Returns whether a copy is no longer what it was made of."""
    if not isinstance(given, Tensor):
        return False
    if handed._version:
        return True
    if given.is_meta or (given.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return not (torch.equal(given, handed) or same_bits(given, handed))


def _share(value: Any, handed: Tensor) -> bool:
    """Returns whether a result stands in the memory of the state that was handed over."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided:
        return False
    # By storage and not by address: zeros that PyTorch never writes out have none.
    return value is handed or value.untyped_storage()._cdata == handed.untyped_storage()._cdata
