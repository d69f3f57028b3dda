"""What launchers take, by the names of its parts; and the formula of the update of a state and a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.address import ONE_DRAW, Address, Coefficient, Draw, DrawTable, Term, Update


def formula(
    x: Tensor,
    score: Tensor,
    c: Coefficient,
    a: Coefficient,
    b: Coefficient | None,
    noise: Tensor | None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """c x + a score + b noise, in the written order."""
    return reference.combine([(c, x), (a, score)], b, noise, mask, known)


def update_of(
    x: Tensor,
    score: Tensor,
    *,
    c: Coefficient,
    a: Coefficient,
    b: Coefficient | None,
    noise: Tensor | None = None,
    mask: Tensor | None = None,
    known: Tensor | None = None,
    fault: Tensor | None = None,
    freeze: bool = False,
    more: Sequence[tuple[Coefficient, Tensor]] = (),
    draws: tuple[Draw, ...] | DrawTable = ONE_DRAW,
    **address: Any,
) -> Update:
    """The update whose factors are expanded to the state's shape.

    ``more`` are further terms, and ``address`` has the fields of an Address by their names.
    """

    def spread(value: Any) -> Any:
        return value.expand(x.shape) if isinstance(value, Tensor) else value

    at = Address(**address)
    terms = tuple(Term(spread(factor), slot) for factor, slot in ((c, x), (a, score), *more))
    return Update(terms, spread(b), at, at.draw, draws, noise, spread(mask), known, fault, freeze)
