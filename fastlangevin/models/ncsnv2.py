"""The three score networks of Song and Ermon (2020, appendix A): NCSNv2, NCSNv2Deeper, NCSNv2Deepest.

The body knows nothing of the level; its output is divided by sigma (technique 3). Parameters have the names, shapes
and order of the published checkpoints, whose ladder is the buffer ``sigmas``.

| network | published for | levels | sigma |
|---|---|---|---|
| NCSNv2 | CIFAR-10 32x32; CelebA 64x64 | 232; 500 | 50 to 0.01; 90 to 0.01 |
| NCSNv2Deeper | LSUN church 96x96; bedroom and tower 128x128 | 788; 1086 | 140 to 0.01; 190 to 0.01 |
| NCSNv2Deepest | FFHQ 256x256 | 2311 | 348 to 0.01 |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fastlangevin.models import ncsn
from fastlangevin.models.instance_norm import InstanceNormPlusPlus
from fastlangevin.models.refinenet import Norm
from fastlangevin.models.standard import Sizes, Stage, StandardNet

__all__ = ["NCSNv2", "NCSNv2Config", "NCSNv2Deeper", "NCSNv2Deepest"]


@dataclass(frozen=True)
class NCSNv2Config(Sizes):
    """Sizes of an :class:`NCSNv2`: see :class:`fastlangevin.models.standard.Sizes`.

    Args:
        channels, width, rescale: as there.
    """


class NCSNv2(StandardNet):
    """Score network for images ``(B, C, H, W)`` with even height and width, meant for up to 64x64 pixels.

    Args:
        sigmas: ladder ``(L,)`` in the units of the images' values, largest first.
        config: sizes.
    """

    CONFIG = NCSNv2Config
    STAGES: ClassVar[tuple[Stage, ...]] = ncsn.STAGES
    POOL = "maximum"

    @staticmethod
    def norms(levels: int) -> tuple[Norm, None]:
        return InstanceNormPlusPlus, None

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.check(x, labels)
        return self.features(x, labels) / self.sigma_of(x, labels)


class NCSNv2Deeper(NCSNv2):
    """As :class:`NCSNv2`, with one more halving: sides are multiples of 4; meant for 96x96 and 128x128 pixels.

    Args:
        sigmas, config: as for :class:`NCSNv2`.
    """

    STAGES = (
        Stage("res1", 1, "same", 1, "refine5", 1),
        Stage("res2", 2, "pool", 1, "refine4", 1),
        Stage("res3", 2, "pool", 1, "refine3", 2),
        Stage("res4", 4, "dilate", 2, "refine2", 2),
        Stage("res5", 4, "dilate", 4, "refine1", 4),
    )


class NCSNv2Deepest(NCSNv2):
    """As :class:`NCSNv2Deeper`, with yet one more: sides are multiples of 8; meant for 256x256 pixels.

    Args:
        sigmas, config: as for :class:`NCSNv2`.
    """

    STAGES = (
        Stage("res1", 1, "same", 1, "refine5", 1),
        Stage("res2", 2, "pool", 1, "refine4", 1),
        Stage("res3", 2, "pool", 1, "refine3", 2),
        Stage("res31", 2, "pool", 1, "refine31", 2),
        Stage("res4", 4, "dilate", 2, "refine2", 2),
        Stage("res5", 4, "dilate", 4, "refine1", 4),
    )
