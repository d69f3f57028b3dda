"""Networks without memory: what tensors one would have, found out before there is any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["shell"]

Net = TypeVar("Net", bound=nn.Module)


class _NoValues(TorchFunctionMode):
    """Leaves out whatever would write values: on the meta device that imports PyTorch's decompositions, for 4 s."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__setitem__":
            return None
        if name.endswith("_") and not name.startswith("_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def shell(build: Callable[[], Net]) -> Net:
    """The network that ``build`` makes, its tensors without memory and without values."""
    with torch.device("meta"), _NoValues():
        return build()
