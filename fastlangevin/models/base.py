"""What the score networks share: the ladder, the checks of a call, files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.ops.arguments import check_labels, conversion

__all__ = ["ScoreNet"]


class ScoreNet(nn.Module):
    """Base of the networks: called as ``net(x, labels)``, returns the score.

    Args:
        sigmas: ladder ``(L,)`` in the units of the data, largest first; kept as the buffer ``sigmas``.
        config: frozen dataclass of plain numbers that builds the network again.
        persistent: whether the ladder is part of ``state_dict()``.
    """

    sigmas: Tensor

    def __init__(self, sigmas: Sigmas, config: Any, *, persistent: bool = True) -> None:
        super().__init__()
        values = check_sigmas(sigmas)
        try:
            # Levels that differ in fp64 can be equal in the fp32 of the network, or zero.
            check_sigmas(torch.tensor(values, dtype=torch.float32, device="cpu"))
        except ValueError as error:
            raise ValueError(f"{error}: a network keeps its ladder in float32, where these are so") from error
        self.register_buffer("sigmas", torch.tensor(values, dtype=torch.float32), persistent=persistent)
        self.config = config

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Score of the data blurred by the level's noise.

        Args:
            x: batch ``(B, *)`` in the units of the data.
            labels: int64 ``(B,)``, index into ``sigmas``, 0 = largest sigma.

        Returns:
            Score, same shape and dtype as ``x``, in 1 / units of the data.
        """
        raise NotImplementedError

    def check_shape(self, x: Tensor) -> None:
        """Raises if the network cannot take a batch of this shape."""
        raise NotImplementedError

    def check(self, x: Tensor, labels: Tensor) -> None:
        """Raises unless the network can be called with these."""
        if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
            if isinstance(x, Tensor):
                kind, mend = str(x.dtype), conversion(x.dtype, "convert it with .float()")
            else:
                kind, mend = type(x).__name__, "torch.as_tensor() makes one"
            raise TypeError(f"x must be a tensor of floating-point numbers, got {kind}; {mend}")
        self.check_shape(x)
        # A replica of DataParallel has its weights as plain attributes: there its first layer refuses another dtype.
        weights = next(self.parameters(), None)
        if weights is not None and x.dtype != weights.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"x is {x.dtype} but the network is {weights.dtype}; convert one: net.to(x.dtype)")
        check_labels(labels, x.shape[0], self.sigmas.numel())

    def sigma_of(self, x: Tensor, labels: Tensor) -> Tensor:
        """Each sample's noise level in the dtype of ``x``, of a shape that broadcasts against it."""
        return self.sigmas[labels].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))

    def save_pretrained(self, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None) -> None:
        """Writes the network to one safetensors file; see :func:`fastlangevin.checkpoint.save`."""
        from fastlangevin.storage import checkpoint

        checkpoint.save(path, self, self.sigmas, metadata=metadata)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a network of this class, in evaluation mode; see :func:`fastlangevin.checkpoint.load`."""
        from fastlangevin.storage import checkpoint

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
