"""The frame around the learnt part of the small networks.

With a data mean m and a data variance v, the network F(u, i) that is learnt gives the score of level i as

    s(x, i) = h / sigma_i,   h = -sigma_i (x - m) / (v + sigma_i^2) + sqrt(v / (v + sigma_i^2)) F(u, i),
    u = (x - m) / sqrt(v + sigma_i^2)

The division by sigma is technique 3 of Song and Ermon 2020; the first term of h is the exact score of the Gaussian
N(m, v) at that level, and the factors keep the input and the target of F near unit variance at all levels (Karras,
Aittala, Aila and Laine 2022, equation 7 and appendix B.6). F starts at zero, so a new network is that Gaussian's score.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastlangevin.ladders import Sigmas
from fastlangevin.memory import is_compiling, lasting
from fastlangevin.models.base import ScoreNet

__all__ = ["FramedScore"]


class _Frame:
    """The frame of a ladder in a dtype, made anew if the ladder is written to, replaced or moved."""

    def __init__(self) -> None:
        self.frame: Tensor | None = None
        self.sigmas: Tensor | None = None
        self.version = 0
        self.dtype: torch.dtype | None = None

    def fits(self, sigmas: Tensor, dtype: torch.dtype) -> bool:
        """Returns whether the frame is that of this ladder, in the dtype."""
        return self.sigmas is sigmas and self.dtype is dtype and sigmas._version == self.version

    def keep(self, frame: Tensor, sigmas: Tensor, dtype: torch.dtype) -> bool:
        """Keeps a frame, unless it may have no numbers or nobody counts the writes to the ladder."""
        if not lasting() or sigmas.is_inference() or frame.is_inference():
            return False
        self.frame, self.sigmas, self.version, self.dtype = frame, sigmas, sigmas._version, dtype
        return True

    def __reduce__(self) -> tuple[type[_Frame], tuple[()]]:
        # A copy's ladder is another tensor.
        return type(self), ()


class FramedScore(ScoreNet):
    """Base of the networks whose learnt part is :meth:`features`.

    Args:
        sigmas: ladder ``(L,)`` in the units of the data, largest first.
        config: frozen dataclass of plain numbers that builds the network again.
        mean: data mean m.
        std: data standard deviation sqrt(v), positive.
    """

    def __init__(self, sigmas: Sigmas, config: Any, *, mean: float, std: float) -> None:
        if not (math.isfinite(std) and std > 0):
            raise ValueError(f"std must be finite and positive, got {std}; it is the standard deviation of the data")
        if not math.isfinite(mean):
            raise ValueError(f"mean must be finite, got {mean}; it is the mean of the data")
        super().__init__(sigmas, config)
        self.mean = mean
        self.variance = std * std
        self._kept = _Frame()

    def weight_dtype(self) -> torch.dtype | None:
        """The dtype of the weights: that of the last layer's, if the network calls that its head."""
        head = self._modules.get("head")
        weight = None if head is None else head.weight
        return weight.dtype if type(weight) is nn.Parameter else super().weight_dtype()

    def features(self, u: Tensor, labels: Tensor) -> Tensor:
        """The learnt part F: standardised input and levels ``(B,)`` to an output of the input's shape."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.check(x, labels)
        # Of the ladder, and then of each sample: the numbers of L levels are fewer than those of B samples, and kept.
        inward, outward, total = self._frame(x)[:, labels].reshape(3, -1, *[1] * (x.ndim - 1)).unbind()
        centred = x - self.mean
        return self.features(centred * inward, labels) * outward - centred / total

    def _frame(self, x: Tensor) -> Tensor:
        """For each level 1/sqrt(v + sigma^2), sqrt(v/(v + sigma^2))/sigma and v + sigma^2, ``(3, L)`` as ``x`` is."""
        sigmas, kept = self.sigmas, self._kept
        if is_compiling() or not kept.fits(sigmas, x.dtype):
            sigma = sigmas.to(x.dtype)
            total = self.variance + sigma * sigma
            frame = torch.stack((total.rsqrt(), (self.variance / total).sqrt() / sigma, total))
            if is_compiling() or not kept.keep(frame, sigmas, x.dtype):
                return frame
        assert kept.frame is not None
        return kept.frame
