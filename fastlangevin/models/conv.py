"""A small convolutional score network for images, light enough for two CPU cores.

An encoder and a decoder with one residual block at each resolution, joined by sums (Ronneberger, Fischer and Brox
2015). A block is: normalise each position over its channels, scale and shift by the level (conditional normalisation,
Song and Ermon 2019, appendix A), SiLU, 3x3 convolution, SiLU, 1x1 convolution, add. Images of any height and width that
divide by patch * 2^(number of widths - 1) go through. The stem takes patch x patch pixels to one position: on a CPU
most of the time goes into moving activations, and a patch of 2 halves them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastlangevin.ladders import Sigmas, number
from fastlangevin.models.base import check_config
from fastlangevin.models.frame import FramedScore
from fastlangevin.values import shown

__all__ = ["ConvConfig", "ConvScore"]


@dataclass(frozen=True)
class ConvConfig:
    """Sizes of a :class:`ConvScore`.

    Args:
        channels: channels of the image, 1 for grey.
        widths: hidden channels at each resolution, finest first; each further entry halves height and width.
        patch: pixels to a side that the stem joins into one position.
        blocks: residual blocks at each resolution, in the encoder and again in the decoder.
        mean: mean of the data's values.
        std: standard deviation of the data's values.
    """

    channels: int = 1
    widths: tuple[int, ...] = (64, 96)
    patch: int = 2
    blocks: int = 1
    mean: float = 0.5
    std: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.widths, str) or not isinstance(self.widths, Iterable):
            raise TypeError(
                f"widths must be a sequence of positive integers such as (32, 64), got {shown(self.widths)}"
            )
        if getattr(self.widths, "ndim", 1) != 1:
            raise TypeError(f"widths must have one dimension, such as (32, 64), got {shown(self.widths)}")
        object.__setattr__(self, "widths", tuple(self.widths))
        sizes = [(name, getattr(self, name)) for name in ("channels", "patch", "blocks")]
        for name, value in sizes + [("widths", width) for width in self.widths]:
            if type(value) is not int or not 1 <= value < 2**62:
                raise ValueError(f"{name} must be a positive integer, got {shown(value)}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        if not self.widths:
            raise ValueError("widths must name at least one resolution, for example (32, 64)")


class LevelNorm(nn.Module):
    """Normalises ``(B, H, W, C)`` over C, then scales and shifts by the level of each sample."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.affine = nn.Embedding(levels, 2 * channels)
        with torch.no_grad():
            self.affine.weight[:, :channels] = 1.0
            self.affine.weight[:, channels:] = 0.0

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        scale, shift = self.affine(labels)[:, None, None, :].chunk(2, dim=-1)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale)


class Block(nn.Module):
    """Residual block on ``(B, C, H, W)`` in channels-last memory."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.norm = LevelNorm(channels, levels)
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        hidden = F.silu(self.norm(x.permute(0, 2, 3, 1), labels)).permute(0, 3, 1, 2)
        out: Tensor = self.mix(F.silu(self.spatial(hidden)))
        return x + out


class Stage(nn.Module):
    """Blocks at one resolution, in a row."""

    def __init__(self, channels: int, levels: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, levels) for _ in range(count))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, labels)
        return x


class ConvScore(FramedScore):
    """Score network for images ``(B, C, H, W)``, conditioned on the noise level.

    Args:
        sigmas: ladder ``(L,)`` in the units of the image's values, largest first.
        config: sizes.
    """

    config: ConvConfig

    def __init__(self, sigmas: Sigmas, config: ConvConfig | None = None) -> None:
        config = ConvConfig() if config is None else config
        check_config(config, ConvConfig)
        super().__init__(sigmas, config, mean=config.mean, std=config.std)
        levels, widths = self.sigmas.numel(), config.widths

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(Stage(width, levels, config.blocks) for width in widths)

        patch = config.patch
        # The stem sees one pixel beyond its patch on each side.
        self.stem = nn.Conv2d(config.channels, widths[0], patch + 2, stride=patch, padding=1)
        self.encoder = blocks()
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.decoder = blocks()
        self.norm = LevelNorm(widths[0], levels)
        self.head = nn.Conv2d(widths[0], config.channels * patch * patch, 3, padding=1)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.zero_()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def check_shape(self, x: Tensor) -> None:
        factor = self.config.patch * 2 ** (len(self.config.widths) - 1)
        channels = self.config.channels
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(
                f"x must be images (B, {channels}, H, W) with H and W divisible by {factor}, got {tuple(x.shape)}; "
                f"pad the images or build the network with fewer widths"
            )

    def features(self, u: Tensor, labels: Tensor) -> Tensor:
        hidden = self.stem(u.contiguous(memory_format=torch.channels_last))
        skips = []
        for depth, stage in enumerate(self.encoder):
            if depth:
                skips.append(hidden)
                hidden = self.down[depth - 1](hidden)
            hidden = stage(hidden, labels)
        for depth in reversed(range(len(self.decoder))):
            hidden = self.decoder[depth](hidden, labels)
            if depth:
                hidden = self.up[depth - 1](hidden) + skips.pop()
        hidden = F.silu(self.norm(hidden.permute(0, 2, 3, 1), labels)).permute(0, 3, 1, 2)
        out: Tensor = self.head(hidden)
        # Of no samples pixel_shuffle has no gradient, as of PyTorch 2.13.
        return F.pixel_shuffle(out, self.config.patch).contiguous() if len(out) else out.reshape(u.shape)
