"""The address of random numbers, and an update that takes them: pure data, which every layer may import."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = [
    "MAX_DRAWS",
    "MAX_TERMS",
    "ONE_DRAW",
    "Address",
    "Coefficient",
    "Draw",
    "DrawTable",
    "Term",
    "Update",
    "Words",
]

# What the kernels take as arguments; a table holds any number of draws.
MAX_TERMS = 6
MAX_DRAWS = 4

Coefficient = float | Tensor


class Address(NamedTuple):
    """The position of one call's random numbers in the stream, apart from the element's place in its sample.

    Attributes:
        seed: 64 bits; or an int64 tensor of one seed, 0-dimensional, or of a seed for each sample, ``(B,)``.
        draw: number of the draw, 32 bits; or an int64 tensor of one number.
        sample_ids: global id of each sample, int64 ``(B,)``; None for ``sample_offset`` and up.
        sample_offset: id of the first sample.
        purpose: number of the :class:`fastlangevin.Purpose`.
    """

    seed: int | Tensor
    draw: int | Tensor
    sample_ids: Tensor | None
    sample_offset: int
    purpose: int


# The fields of an Address whose seed and draw are numbers; a NamedTuple takes two calls to make.
Words = tuple[int, int, Tensor | None, int, int]


class Term(NamedTuple):
    """A summand of an update that is not noise.

    Attributes:
        a: coefficient: a number, or a tensor of the computing dtype that is expanded to the state's shape.
        slot: what it multiplies ``(B, ...)``: a state or a score, of any float dtype.
    """

    a: Coefficient
    slot: Tensor


class Draw(NamedTuple):
    """A draw of the noise of an update.

    Attributes:
        weight: what its normals are multiplied by.
        offset: its number, less the draw of the update's address.
    """

    weight: float
    offset: int


class DrawTable(NamedTuple):
    """The draws of the noise of an update, in memory on the state's device.

    Attributes:
        weights: what the normals of each are multiplied by, contiguous ``(N,)`` in the computing dtype.
        numbers: the draw numbers themselves, contiguous int64 ``(N,)``, 0 to 2^32 - 1. The draw of the address is not
            added.
    """

    weights: Tensor
    numbers: Tensor


ONE_DRAW = (Draw(1.0, 0),)


class Update(NamedTuple):
    """One move of a sampler: out = a_0 s_0 + a_1 s_1 + ... + b z with z = w_0 z_0 + w_1 z_1 + ...

    z is summed first, left to right, then the terms in their order, then b z; every product and every sum is rounded
    to the computing dtype, which is fp64 where the first slot is and fp32 otherwise, and the result once more to the
    dtype of the first slot.

    Attributes:
        terms: 1 to 6; the slot of the first is the state, whose shape, dtype and device the result has.
        b: factor of the noise, as that of a term; None draws nothing.
        address: of the noise.
        number: of the step, which ``fault`` is lowered to and ``freeze`` compares; an int or an int64 tensor ``()``.
        draws: 1 to 4, or a table of any number; one of weight 1 is not multiplied.
        noise: z itself, same shape, any float dtype, in place of the draws.
        mask: bool, expanded to the shape; where it is True the result is ``known``.
        known: of the state's shape and dtype.
        fault: int64 ``(B,)``, contiguous: lowered to ``number`` where the result of a sample is not finite.
        freeze: samples whose fault is below ``number`` keep the state as it is.
    """

    terms: tuple[Term, ...]
    b: Coefficient | None
    address: Address
    number: int | Tensor
    draws: tuple[Draw, ...] | DrawTable = ONE_DRAW
    noise: Tensor | None = None
    mask: Tensor | None = None
    known: Tensor | None = None
    fault: Tensor | None = None
    freeze: bool = False

    @property
    def state(self) -> Tensor:
        """The slot of the first term. PyTorch 2.10 traces no property, so what may be compiled unpacks the terms."""
        (_, slot), *_ = self.terms
        return slot

    @property
    def draws_noise(self) -> bool:
        """Returns whether normals are drawn."""
        return self.b is not None and self.noise is None
