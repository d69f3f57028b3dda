"""The blocks of the standard score networks: residual blocks, and the refine blocks of RefineNet (Lin et al. 2017).

All take ``(B, C, H, W)`` and the level of each sample. What is a sum passes from block to block as its terms: whichever
norm or activation comes next adds them up in its own pass.

A refine block adapts each of its inputs (residual convolution units), sums them at the finest resolution
(multi-resolution fusion), and adds what wide windows see (chained residual pooling).
Names and order of the parameters are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fastlangevin.models.instance_norm import of_sum
from fastlangevin.ops.add_elu import add_elu

__all__ = ["Encoder", "Kind", "Norm", "Pool", "Refine", "Residual", "Terms"]

Norm = Callable[[int], nn.Module]
Terms = tuple[Tensor, ...]
Kind = Literal["same", "pool", "dilate"]
Pool = Literal["average", "maximum"]


def _conv(inputs: int, outputs: int, *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)


class _PooledConv(nn.Module):
    """A convolution and the mean of each 2x2 pixels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        # A 1x1 convolution commutes with the mean, and behind it has a quarter of the pixels to do.
        if self.conv.kernel_size == (1, 1):
            out: Tensor = self.conv(F.avg_pool2d(x, 2))
            return out
        return F.avg_pool2d(self.conv(x), 2)


class Residual(nn.Module):
    """Norm, ELU, convolution, twice, beside a shortcut that sees the raw input.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; the second convolution widens.
        norm: makes a normalisation of some channels.
        kind: ``"same"``, shortcut without parameters; ``"pool"``, which halves height and width behind the second
            convolution and has a 1x1 shortcut; ``"dilate"``, which keeps them and has a dilated 3x3 shortcut.
        dilation: of all 3x3 convolutions.
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm, kind: Kind, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, inputs, dilation=dilation)
        self.normalize2 = norm(inputs)
        conv2 = _conv(inputs, outputs, dilation=dilation)
        self.conv2 = _PooledConv(conv2) if kind == "pool" else conv2
        self.shortcut: nn.Module = nn.Identity()
        if kind == "pool":
            self.shortcut = _PooledConv(nn.Conv2d(inputs, outputs, 1))
        elif kind == "dilate":
            self.shortcut = _conv(inputs, outputs, dilation=dilation)
        self.normalize1 = norm(inputs)

    def forward(self, terms: Terms, labels: Tensor) -> tuple[Terms, Tensor]:
        """The terms of the output, and the input added up."""
        hidden, x = of_sum(self.normalize1, terms, labels, activation=True)
        hidden = self.normalize2(self.conv1(hidden), labels, activation=True)
        return (self.shortcut(x), self.conv2(hidden)), x


class Encoder(nn.ModuleList):
    """A stage of the encoder: one residual block that changes width or resolution, and one that keeps them."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, kind: Kind, dilation: int) -> None:
        super().__init__(
            [
                Residual(inputs, outputs, norm, kind, dilation),
                Residual(outputs, outputs, norm, "same", dilation),
            ]
        )

    def forward(self, terms: Terms, labels: Tensor) -> tuple[Terms, Tensor]:
        """The terms of the output, and the input added up."""
        first, second = self
        terms, x = first(terms, labels)
        return second(terms, labels)[0], x


class _Units(nn.ModuleDict):
    """Residual convolution units: x + conv(ELU(norm(conv(ELU(norm(x)))))), without the norms in the later networks."""

    def __init__(self, width: int, count: int, norm: Norm | None) -> None:
        super().__init__()
        self.names = [[f"{unit}_{stage}" for stage in (1, 2)] for unit in range(1, count + 1)]
        for name in chain.from_iterable(self.names):
            if norm is not None:
                self[f"{name}_norm"] = norm(width)
            self[f"{name}_conv"] = _conv(width, width, bias=False)

    def _activate(self, name: str, terms: Terms, labels: Tensor) -> tuple[Tensor, Tensor]:
        """ELU of the sum, of its norm where there is one, and the sum."""
        if f"{name}_norm" in self:
            return of_sum(self[f"{name}_norm"], terms, labels, activation=True)
        kept, activated = add_elu(*terms)
        assert kept is not None
        return activated, kept

    def forward(self, terms: Terms, labels: Tensor) -> Terms:
        """The terms of the output."""
        for first, second in self.names:
            hidden, x = self._activate(first, terms, labels)
            hidden, _ = self._activate(second, (self[f"{first}_conv"](hidden),), labels)
            terms = x, self[f"{second}_conv"](hidden)
        return terms


class _Fusion(nn.Module):
    """Multi-resolution fusion: the sum of conv(norm(input)), each brought to the size of the first input."""

    def __init__(self, inputs: Sequence[int], outputs: int, norm: Norm | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width, outputs) for width in inputs)
        self.norms = nn.ModuleList(norm(width) for width in inputs) if norm is not None else None

    def forward(self, inputs: Sequence[Terms], labels: Tensor) -> Terms:
        """The terms of the output."""
        size = inputs[0][0].shape[2:]
        parts = []
        for index, conv in enumerate(self.convs):
            if self.norms is not None:
                hidden = of_sum(self.norms[index], inputs[index], labels)[0]
            else:
                hidden = sum(inputs[index][1:], inputs[index][0])
            hidden = conv(hidden)
            if hidden.shape[2:] != size:
                hidden = F.interpolate(hidden, size, mode="bilinear", align_corners=True)
            parts.append(hidden)
        return tuple(parts)


class _Pooling(nn.Module):
    """Chained residual pooling: y = ELU(x), and to it p_1 = conv(pool(norm(y))) and p_2 = conv(pool(norm(p_1))).

    With the maximum, torch.compile's Inductor of PyTorch 2.13 gets the gradient wrong on CPUs, by half of its largest
    value: for any conv, in p + conv(max_pool2d(p)) with p = conv(x). The output is right, and so are the gradients of
    the backends eager and aot_eager.
    """

    def __init__(self, width: int, norm: Norm | None, pool: Pool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width, width, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(norm(width) for _ in range(2)) if norm is not None else None
        self.pool = pool

    def forward(self, terms: Terms, labels: Tensor) -> Terms:
        """The terms of the output."""
        path = add_elu(*terms, keep=False)[1]
        outputs = [path]
        for index, conv in enumerate(self.convs):
            if self.norms is not None:
                path = self.norms[index](path, labels)
            if self.pool == "average":
                # Windows that reach over the border are divided by 25 all the same, as the published networks do.
                path = F.avg_pool2d(path, 5, 1, 2, count_include_pad=True)
            else:
                path = F.max_pool2d(path, 5, 1, 2)
            path = conv(path)
            outputs.append(path)
        return tuple(outputs)


class Refine(nn.Module):
    """A refine block: units on each input, fusion, pooling, units.

    Args:
        inputs: channels of each input, the finest first; with one there is no fusion.
        outputs: channels of the output.
        norm: makes the normalisations; None for none.
        pool: kind of the 5x5 pooling.
        units: residual convolution units at the end.
    """

    def __init__(self, inputs: Sequence[int], outputs: int, norm: Norm | None, pool: Pool, units: int) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(_Units(width, 2, norm) for width in inputs)
        self.output_convs = _Units(outputs, units, norm)
        self.msf = _Fusion(inputs, outputs, norm) if len(inputs) > 1 else None
        self.crp = _Pooling(outputs, norm, pool)

    def forward(self, inputs: Sequence[Terms], labels: Tensor) -> Terms:
        """The terms of the output, from those of each input."""
        adapted = [adapt(terms, labels) for adapt, terms in zip(self.adapt_convs, inputs, strict=True)]
        fused = adapted[0] if self.msf is None else self.msf(adapted, labels)
        out: Terms = self.output_convs(self.crp(fused, labels), labels)
        return out
