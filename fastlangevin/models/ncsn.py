"""The noise conditional score network of Song and Ermon (2019, appendix A), called v1.

Each normalisation looks its scale and shift up by the level. The output is the score itself, not divided by sigma.
Parameters have the names, shapes and order of the published checkpoints. One network serves 32x32 colour images
(CIFAR-10, CelebA: ``NCSNConfig()``) and 28x28 grey ones (MNIST: ``NCSNConfig(channels=1, width=64)``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from fastlangevin.models.instance_norm import ConditionalInstanceNormPlusPlus
from fastlangevin.models.refinenet import Norm
from fastlangevin.models.standard import Sizes, Stage, StandardNet

__all__ = ["NCSN", "STAGES", "NCSNConfig"]

STAGES = (
    Stage("res1", 1, "same", 1, "refine4", 1),
    Stage("res2", 2, "pool", 1, "refine3", 1),
    Stage("res3", 2, "dilate", 2, "refine2", 2),
    Stage("res4", 2, "dilate", 4, "refine1", 2),
)


@dataclass(frozen=True)
class NCSNConfig(Sizes):
    """Sizes of an :class:`NCSN`: see :class:`fastlangevin.models.standard.Sizes`.

    Args:
        channels, width, rescale: as there.
    """


class NCSN(StandardNet):
    """Score network v1 for images ``(B, C, H, W)`` with even height and width.

    Its ladder is no part of ``state_dict()``, as in the published checkpoints; it trained at 10 levels from 1 to 0.01.

    Args:
        sigmas: ladder ``(L,)`` in the units of the images' values, largest first.
        config: sizes; the default is that of CIFAR-10.
    """

    CONFIG = NCSNConfig
    STAGES: ClassVar[tuple[Stage, ...]] = STAGES
    POOL = "average"
    LADDER_IN_STATE = False

    @staticmethod
    def norms(levels: int) -> tuple[Norm, Norm]:
        norm = partial(ConditionalInstanceNormPlusPlus, levels=levels)
        return norm, norm

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.check(x, labels)
        return self.features(x, labels)
