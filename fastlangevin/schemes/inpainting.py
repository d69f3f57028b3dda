"""The known region of an inpainting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fastlangevin.ops.arguments import floating

__all__ = ["Inpainting"]

Noise = Literal["level", "level_start", "step"]


@dataclass(frozen=True)
class Inpainting:
    """A region that is known, which the chain holds at the data perturbed by the noise of its level.

    Args:
        mask: bool, of the samples' shape or one that broadcasts to it: True where a sample is known.
        known: the data, likewise; what stands outside of the mask is not looked at but must be finite.
        noise: ``"level"``, Algorithm 2 of the paper: one perturbation y for each level, in place after every update, so
            that samples end with it; the first score of a level sees the y of the level before, and the first of all
            the initial state. ``"level_start"``, NCSN's code: the same y, in place before the first score of its level
            too. ``"step"``, NCSNv2's: a new one before every score, none after the last update.
    """

    mask: Tensor
    known: Tensor
    noise: Noise = "level"

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool:
            kind = self.mask.dtype if isinstance(self.mask, Tensor) else type(self.mask).__name__
            raise TypeError(f"mask must be a bool tensor, True where a sample is known, got {kind}; use mask.bool()")
        floating("known", self.known)
        if self.noise not in get_args(Noise):
            raise ValueError(
                "noise must be 'level' (once for each level, after its updates, the paper's), 'level_start' (before "
                f"its first score too, NCSN's code) or 'step' (before every score, NCSNv2's), got {self.noise!r}"
            )
