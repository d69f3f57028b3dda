"""Score functions: any callable ``(x, level) -> score``, and adapters for networks with other conventions.

``x`` is ``(B, ...)``, ``level`` an int64 tensor ``(B,)`` of indices into the ladder, 0 for the largest sigma. In
samplers a score may work in place on both and may use autograd: see :class:`fastlangevin.calling.Guarded`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from fastlangevin.calling import Guarded, wrong_shape
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.schedules import Sigmas, check_sigmas

__all__ = ["ScoreFunction", "adapt"]

ScoreFunction = Callable[[Tensor, Tensor], Tensor]
Takes = Literal["labels", "sigma"]
Output = Literal["score", "scaled", "noise", "denoised"]


def adapt(
    net: Callable[[Tensor, Tensor], Tensor],
    sigmas: Sigmas,
    *,
    takes: Takes = "labels",
    output: Output = "score",
) -> ScoreFunction:
    """A score function from a network of another convention.

    Args:
        net: called as ``net(x, labels)`` or ``net(x, sigma)``.
        sigmas: the ladder that labels index, largest first.
        takes: ``"labels"``, int64 ``(B,)``; or ``"sigma"``, the noise level in the state's dtype, ``(B,)``.
        output: what the network returns, h: ``"score"``; ``"scaled"``, score = h/sigma; ``"noise"``, the predicted z of
            x = data + sigma z, score = -h/sigma; ``"denoised"``, the predicted data, score = (h - x)/sigma^2.

    Returns:
        A callable ``(x, labels) -> score``. The score is what ``net`` returns with ``output="score"``; of the others
        it is computed, and returned, in fp32 for states of 16 bits.

    Raises:
        TypeError: ``net`` cannot be called, or ``sigmas`` is no ladder.
        ValueError: ``takes`` or ``output`` is not known.
    """
    if takes not in get_args(Takes):
        raise ValueError(f"takes must be one of {', '.join(get_args(Takes))}, got {takes!r}")
    if output not in get_args(Output):
        raise ValueError(f"output must be one of {', '.join(get_args(Output))}, got {output!r}")
    if not callable(net):
        raise TypeError(f"net must be callable as net(x, {takes}), got {type(net).__name__}")
    # State and labels are needed once more after the call, in which the network may write to them.
    call = net if output == "score" else Guarded("net", net, like_state=False)
    ladder = torch.tensor(check_sigmas(sigmas), dtype=torch.float64, device="cpu")

    tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def score(x: Tensor, labels: Tensor) -> Tensor:
        where = x.device, x.dtype
        if where not in tables:
            # Waits for the device: once, not at every call.
            tables[where] = ladder.to(x.device, x.dtype), ladder.to(x.device, compute_dtype(x))
        told, wide = tables[where]
        value = call(x, labels if takes == "labels" else told[labels])
        if not isinstance(value, Tensor):
            raise TypeError(f"net must return a tensor of the shape of x, got {type(value).__name__}")
        if value.shape != x.shape:
            raise ValueError(wrong_shape("net", value, x))
        if output == "score":
            return value
        # In 16 bits sigma^2 would be rounded to a few bits, or to zero.
        sigma = wide[labels].reshape(-1, *(1,) * (x.ndim - 1))
        if output == "denoised":
            return (value.to(sigma.dtype) - x) / sigma**2
        return value / sigma if output == "scaled" else -value / sigma

    return score
