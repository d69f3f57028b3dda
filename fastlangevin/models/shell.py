"""Networks without values: what tensors one would have, and one whose weights a file is going to fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["shell", "unfilled"]

Net = TypeVar("Net", bound=nn.Module)

# Methods of tensors.
_DRAWS = frozenset(
    ["bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_"]
)


class _Without(TorchFunctionMode):
    """Leaves out the functions that are told by ``left_out``, which write into their first argument."""

    def __init__(self, left_out: Callable[[Any], bool]) -> None:
        super().__init__()
        self.left_out = left_out

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.left_out(func):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _writes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("_"))


def _starts(func: Any) -> bool:
    return getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in _DRAWS


def shell(build: Callable[[], Net]) -> Net:
    """The network that ``build`` makes, its tensors without memory and without values."""
    # On the meta device writing imports PyTorch's decompositions, for 4 s.
    with torch.device("meta"), _Without(_writes):
        return build()


def unfilled(build: Callable[[], Net]) -> Net:
    """The network that ``build`` makes on the CPU, its weights with whatever their memory held before.

    For a state that takes their place. Nothing is drawn, so that PyTorch's generator, which all threads share, is left
    alone also meanwhile; buffers that are no part of a state have their values.
    """
    with torch.device("cpu"), _Without(_starts):
        return build()
