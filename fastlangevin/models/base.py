"""Base class of the score networks: the ladder, argument checks, files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.memory import is_compiling, lasting
from fastlangevin.ops.arguments import check_labels, conversion

__all__ = ["ScoreNet"]


class _Checked:
    """Labels that were found to be right. A sampler calls a network with the same tensor at all updates of a level."""

    def __init__(self) -> None:
        self.labels: Tensor | None = None
        self.version = 0

    def has(self, labels: object, x: Tensor) -> bool:
        """Returns whether these labels, of a batch, were checked and have not been written to since."""
        kept = self.labels
        return kept is labels and kept is not None and kept._version == self.version and kept.shape[0] == x.shape[0]

    def keep(self, labels: Tensor) -> None:
        """Remembers labels whose writes PyTorch counts."""
        if type(labels) is Tensor and lasting() and not labels.is_inference():
            self.labels, self.version = labels, labels._version

    def __reduce__(self) -> tuple[type[_Checked], tuple[()]]:
        # A copy of a network has no need of them, and a file even less.
        return type(self), ()


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
        # The labels that were checked last. Not by the module's own attributes, which take six calls to be set.
        self._checked = _Checked()

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
        if not (type(x) is Tensor or isinstance(x, Tensor)) or not x.dtype.is_floating_point:
            if isinstance(x, Tensor):
                kind, mend = str(x.dtype), conversion(x.dtype, "convert it with .float()")
            else:
                kind, mend = type(x).__name__, "torch.as_tensor() makes one"
            raise TypeError(f"x must be a tensor of floating-point numbers, got {kind}; {mend}")
        self.check_shape(x)
        dtype = self.weight_dtype()
        if dtype is not None and x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"x is {x.dtype} but the network is {dtype}; convert one: net.to(x.dtype)")
        if is_compiling() or not self._checked.has(labels, x):
            check_labels(labels, x.shape[0], self.sigmas.numel())
            if not is_compiling():
                self._checked.keep(labels)

    def weight_dtype(self) -> torch.dtype | None:
        """The dtype of the weights, None where that is not known.

        A replica of DataParallel has its weights as plain attributes: there its first layer refuses another dtype.
        """
        weights = next(self.parameters(), None)
        return None if weights is None else weights.dtype

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
