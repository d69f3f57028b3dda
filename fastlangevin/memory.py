"""Decides whether an operation may read its tensors by their addresses.

It may if nothing intercepts the call and the memory of the tensors holds their values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = ["in_memory", "is_compiling", "lasting", "observed", "recorded", "transforms"]

# A call less than torch.compiler.is_compiling; what only that sees, an export, has a dispatch mode at work.
is_compiling = torch.compiler.is_dynamo_compiling
_functorch: Any = torch._C._functorch
_level = _functorch.maybe_current_level
_modes = torch._C._len_torch_dispatch_stack
_tracing = torch._C._get_tracing_state
_keys: Any = torch._C._dispatch_keys
_PYTHON: Any = torch._C.DispatchKey.Python


def recorded() -> bool:
    """Returns whether a compiler, a tracer or a dispatch mode records or intercepts calls.

    What is not ``torch.ops.fastlangevin.*`` then, nor plain PyTorch, is missing from the record.
    """
    return is_compiling() or _modes() > 0 or _tracing() is not None


def transforms() -> bool:
    """Returns whether vmap, jvp and the like are at work, which see into plain PyTorch alone."""
    # A compiler has its own way through them, and does not look into these two.
    return not is_compiling() and (_level() is not None or forward_ad._current_level >= 0)


def observed() -> bool:
    """:func:`recorded` or :func:`transforms`, in one call: it is asked before every small update."""
    return (
        is_compiling()
        or _modes() > 0
        or _level() is not None
        or forward_ad._current_level >= 0
        or _tracing() is not None
    )


def lasting() -> bool:
    """Returns whether a tensor made now may be kept for later calls; a mode's or a tracer's may hold no numbers."""
    # A compiler has its own way with what is kept.
    return is_compiling() or not observed()


def in_memory(name: str, value: Tensor) -> Tensor:
    """A tensor whose memory holds its value: itself, or a copy where PyTorch changes values as it reads them.

    Raises:
        TypeError: it is of a class that holds its values elsewhere, and no mode is at work that could say where.
    """
    if is_compiling():
        return value
    if type(value) is not Tensor and type(value) is not nn.Parameter and _keys(value).has(_PYTHON):
        if recorded():
            return value
        raise TypeError(
            f"{name} is a {type(value).__name__}, which keeps its values apart from its own memory; pass the plain "
            "tensor that it stands for, and fake tensors inside of their FakeTensorMode"
        )
    if value._is_zerotensor():
        return value.clone()
    return value.resolve_neg() if value.is_neg() else value
