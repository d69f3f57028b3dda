"""The skeleton of the standard score networks: an encoder of residual stages, refined from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fastlangevin.ladders import Sigmas
from fastlangevin.models.base import ScoreNet, check_config
from fastlangevin.models.instance_norm import of_sum
from fastlangevin.models.refinenet import Encoder, Kind, Norm, Pool, Refine, Terms
from fastlangevin.values import shown

__all__ = ["Sizes", "Stage", "StandardNet"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a standard network. Height and width of the images are none of them.

    Args:
        channels: channels of the image.
        width: channels at the finest resolution, ``ngf`` in published settings; coarser ones have two or four times it.
        rescale: whether the network takes images in [0, 1] and maps them to [-1, 1] itself; False for data in logit
            space or already in [-1, 1]. All published checkpoints have True.
    """

    channels: int = 3
    width: int = 128
    rescale: bool = True

    def __post_init__(self) -> None:
        # Of one channel InstanceNorm++ would take an unbiased variance.
        for name, least in (("channels", 1), ("width", 2)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 2**62:
                raise ValueError(f"{name} must be an integer of at least {least}, got {shown(value)}")
        if type(self.rescale) is not bool:
            raise TypeError(f"rescale must be True or False, got {self.rescale!r}")


class Stage(NamedTuple):
    """A stage of the encoder and the refine block that takes its output; widths in multiples of ``Sizes.width``."""

    name: str
    width: int
    kind: Kind
    dilation: int
    refine: str
    refined: int


class StandardNet(ScoreNet):
    """Base of the standard networks, which differ in their stages, norms and pooling.

    Args:
        sigmas: ladder ``(L,)`` in the units of the images' values, largest first.
        config: sizes; by default those of the published networks for CIFAR-10.
    """

    config: Sizes
    CONFIG: ClassVar[type[Sizes]]
    STAGES: ClassVar[tuple[Stage, ...]]
    POOL: ClassVar[Pool]
    LADDER_IN_STATE: ClassVar[bool] = True

    @staticmethod
    def norms(levels: int) -> tuple[Norm, Norm | None]:
        """Returns constructors of the norms in the residual blocks and at the end, and of those in refine blocks."""
        raise NotImplementedError

    def __init__(self, sigmas: Sigmas, config: Sizes | None = None) -> None:
        config = self.CONFIG() if config is None else config
        check_config(config, self.CONFIG)
        super().__init__(sigmas, config, persistent=self.LADDER_IN_STATE)
        norm, refine_norm = self.norms(self.sigmas.numel())
        width = config.width
        self.begin_conv = nn.Conv2d(config.channels, width, 3, padding=1)
        self.normalizer = norm(width)
        self.end_conv = nn.Conv2d(width, config.channels, 3, padding=1)
        first = Stage("begin_conv", 1, "same", 1, "", 0)
        for before, stage in pairwise((first, *self.STAGES)):
            encoder = Encoder(before.width * width, stage.width * width, norm, stage.kind, stage.dilation)
            self.add_module(stage.name, encoder)
        refined: list[int] = []
        blocks = {}
        for stage in reversed(self.STAGES):
            units = 3 if stage is self.STAGES[0] else 1
            inputs = [stage.width * width, *refined]
            refined = [stage.refined * width]
            blocks[stage.refine] = Refine(inputs, refined[0], refine_norm, self.POOL, units)
        # Published optimiser states and averages go by the order of the names, which is not that of the use.
        for name in sorted(blocks):
            self.add_module(name, blocks[name])

    @property
    def divisor(self) -> int:
        """The number that must divide height and width."""
        return 1 << sum(stage.kind == "pool" for stage in self.STAGES)

    def check_shape(self, x: Tensor) -> None:
        channels, divisor = self.config.channels, self.divisor
        if (
            x.ndim != 4
            or x.shape[1] != channels
            or x.shape[2] % divisor
            or x.shape[3] % divisor
            # On a grid of one pixel nothing would be left of it after its mean is taken off.
            or x.shape[2] * x.shape[3] <= divisor**2
        ):
            raise ValueError(
                f"x must be images (B, {channels}, H, W) with H and W multiples of {divisor} and one of them at least "
                f"{2 * divisor}, got {tuple(x.shape)}; pad or resize the images, or build the network with "
                f"{type(self.config).__name__}(channels=...)"
            )

    def features(self, x: Tensor, labels: Tensor) -> Tensor:
        """All of the network up to the last convolution, included."""
        # 2x - 1 in one operation and with its bits, since 2x is exact.
        terms: Terms = (self.begin_conv(torch.rsub(x, -1, alpha=-2) if self.config.rescale else x),)
        outputs: list[Terms] = []
        for stage in self.STAGES:
            terms, added = getattr(self, stage.name)(terms, labels)
            if outputs:
                outputs[-1] = (added,)
            outputs.append(terms)
        refined: list[Terms] = []
        for stage in reversed(self.STAGES):
            # Taken off the list, so that its memory is free once it has been used.
            refined = [getattr(self, stage.refine)([outputs.pop(), *refined], labels)]
        out: Tensor = self.end_conv(of_sum(self.normalizer, refined[0], labels, activation=True)[0])
        # In fp32 under autocast, and rows of pixels whatever layout the convolutions took.
        return out.to(x.dtype).contiguous()
