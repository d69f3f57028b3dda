"""What the score networks share: the ladder, the frame around the learnt part, files.

With a data mean m and a data variance v, the network F(u, i) that is learnt gives the score of level i as

    s(x, i) = h / sigma_i,   h = -sigma_i (x - m) / (v + sigma_i^2) + sqrt(v / (v + sigma_i^2)) F(u, i),
    u = (x - m) / sqrt(v + sigma_i^2)

The division by sigma is technique 3 of Song and Ermon 2020; the first term of h is the exact score of the Gaussian
N(m, v) at that level, and the factors keep the input and the target of F near unit variance at all levels (Karras,
Aittala, Aila and Laine 2022, equation 7 and appendix B.6). F starts at zero, so a new network is that Gaussian's score.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from fastlangevin.ops.arguments import check_labels
from fastlangevin.schedules import Sigmas, check_sigmas

__all__ = ["ScoreNet"]


class ScoreNet(nn.Module):
    """Base of the networks: called as ``net(x, labels)``, returns the score.

    Args:
        sigmas: ladder ``(L,)`` in the units of the data, largest first; kept as the buffer ``sigmas``.
        config: frozen dataclass of plain numbers that builds the network again.
        mean: data mean m.
        std: data standard deviation sqrt(v), positive.
    """

    sigmas: Tensor

    def __init__(self, sigmas: Sigmas, config: Any, *, mean: float, std: float) -> None:
        super().__init__()
        if not (math.isfinite(std) and std > 0):
            raise ValueError(f"std must be finite and positive, got {std}; it is the standard deviation of the data")
        if not math.isfinite(mean):
            raise ValueError(f"mean must be finite, got {mean}; it is the mean of the data")
        ladder = torch.tensor(check_sigmas(sigmas), dtype=torch.float32)
        # Levels that differ in fp64 can be equal in the fp32 of the network, or zero.
        check_sigmas(ladder)
        self.register_buffer("sigmas", ladder)
        self.config = config
        self.mean = mean
        self.variance = std * std

    def features(self, u: Tensor, labels: Tensor) -> Tensor:
        """The learnt part F: standardised input and levels ``(B,)`` to an output of the input's shape."""
        raise NotImplementedError

    def check_shape(self, x: Tensor) -> None:
        """Raises if the network cannot take a batch of this shape."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Score of the data blurred by the level's noise.

        Args:
            x: batch ``(B, *)`` in the units of the data.
            labels: int64 ``(B,)``, index into ``sigmas``, 0 = largest sigma.

        Returns:
            Score, same shape and dtype as ``x``, in 1 / units of the data.
        """
        if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x must be a tensor of floating-point numbers, got {kind}; convert it with .float()")
        self.check_shape(x)
        weights = next(self.parameters())
        if x.dtype != weights.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"x is {x.dtype} but the network is {weights.dtype}; convert one: net.to(x.dtype)")
        check_labels(labels, x.shape[0], self.sigmas.numel())
        sigma = self.sigmas[labels].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        total = self.variance + sigma * sigma
        centred = x - self.mean
        learnt = self.features(centred * total.rsqrt(), labels)
        return learnt * ((self.variance / total).sqrt() / sigma) - centred / total

    def save_pretrained(self, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None) -> None:
        """Writes the network to one safetensors file; see :func:`fastlangevin.checkpoint.save`."""
        from fastlangevin import checkpoint

        checkpoint.save(path, self, self.sigmas, metadata=metadata)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a network of this class, in evaluation mode; see :func:`fastlangevin.checkpoint.load`."""
        from fastlangevin import checkpoint

        net = checkpoint.load(path).net
        if not isinstance(net, cls):
            raise ValueError(
                f"{os.fspath(path)} holds a network of class {type(net).__name__}, not {cls.__name__}; "
                f"read it with {type(net).__name__}.from_pretrained or fastlangevin.checkpoint.load"
            )
        return net


def check_config(config: object, kind: type) -> None:
    """Raises unless a network's configuration is of its own kind."""
    if not isinstance(config, kind):
        raise TypeError(f"config must be a {kind.__name__}, got {type(config).__name__}")
