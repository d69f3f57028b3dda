"""The known region of a chain (Song and Ermon 2019, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address, Term, Update
from fastlangevin.noise import Purpose
from fastlangevin.ops.arguments import same_place
from fastlangevin.ops.move import move
from fastlangevin.schemes import Inpainting, Scheme

__all__ = ["Region"]


class Region:
    """An :class:`Inpainting` of one chain.

    The noise of a level has the level for its draw number, that of NCSNv2's the draw number of the update which follows
    it; the purpose is its own.
    """

    def __init__(
        self,
        inpainting: Inpainting,
        x: Tensor,
        address: Address,
        impl: str,
        scheme: Scheme,
    ) -> None:
        for name, tensor in (("mask", inpainting.mask), ("known", inpainting.known)):
            same_place(name, tensor, x)
            try:
                tensor.expand(x.shape)
            except RuntimeError:
                raise ValueError(
                    f"{name} must have the samples' shape {tuple(x.shape)} or one that broadcasts to it, got "
                    f"{tuple(tensor.shape)}"
                ) from None
        self.mask = inpainting.mask.expand(x.shape)
        self.known = inpainting.known.to(x.dtype).expand(x.shape).contiguous()
        self.noise = inpainting.noise
        self.address = address._replace(purpose=int(Purpose.INPAINTING))
        self.impl = impl
        self.scheme = scheme
        self.total = scheme.total
        self.drawn = -1
        self.perturbed = self.known

    def at(self, number: int) -> tuple[int, float]:
        """Index of the level of a step, and its sigma."""
        level = self.scheme.make(number).level or 0
        return level, self.scheme.ladder[level]

    def _perturb(self, draw: int, sigma: float) -> Tensor:
        if self.drawn != draw:
            # known + sigma z; a zero times the data keeps the operation's form.
            terms = Term(1.0, self.known), Term(0.0, self.known)
            self.perturbed = move(Update(terms, sigma, self.address._replace(draw=draw), draw), self.impl)
            self.drawn = draw
        return self.perturbed

    def begin(self, x: Tensor, done: int) -> None:
        """Put the region into the state that a chain begins with, where it belongs there before the first score."""
        if self.noise != "level" and done == 0 and self.total:
            self._put(x, self._perturb(0, self.at(0)[1]), self.mask)

    def before(self, index: int, x: Tensor, frozen: Callable[[], Tensor | None]) -> None:
        """Put the region into the state before an update's score, where its level begins with that.

        Args:
            index: number of the update.
            x: the state ``(B, ...)``, written to.
            frozen: tells the samples that stay as they are, bool ``(B,)``, or None.
        """
        if self.noise != "level_start" or index == 0:
            return
        level, sigma = self.at(index)
        if self.at(index - 1)[0] != level:
            still = frozen()
            where = self.mask if still is None else self.mask & ~still.view(-1, *[1] * (x.ndim - 1))
            self._put(x, self._perturb(level, sigma), where)

    def _put(self, x: Tensor, y: Tensor, where: Tensor) -> None:
        x.copy_(torch.where(where, y, x))

    def after(self, index: int) -> Tensor | None:
        """Returns the values that an update leaves in the region; None if it leaves what it computes there."""
        if self.noise != "step":
            level, sigma = self.at(index)
            return self._perturb(level, sigma)
        if index + 1 == self.total:
            return None
        return self._perturb(index + 1, self.at(index + 1)[1])
