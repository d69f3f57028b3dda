"""Checks that a fused network gives the same output as before, up to rounding.

How much rounding explains is measured on the network itself. Each fused norm was seen to differ from the user's by some
amount on each channel of each sample. The user's network is run again with its norms' results moved by those amounts,
each channel as a whole up or down at random, which carries further than differences that change from pixel to pixel.
What that does to the output, times a margin, is what the fused one may differ by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastlangevin.fusion.listen import Norm
from fastlangevin.fusion.probe import Probe, changes, magnitudes
from fastlangevin.ops.random import rand

__all__ = ["allowed_changes", "worst"]

DRAWS = 2
# Of 144 small networks (six kinds, fp32, fp16 and bf16, three sizes) none came nearer to it than to a fifth.
MARGIN = 4
# Roundings of the output itself, where no norm moves it.
ROUNDINGS = 8
# Allowing a larger share of the largest output would show nothing: a missing activation changes a network by as much.
# Of bfloat16, whose own roundings come near that, the check of each norm by itself says more.
BLIND, BLIND_ROUNDINGS = 1 / 16, 64


def allowed_changes(probe: Probe, norms: list[Norm], before: list[Tensor], again: list[Tensor]) -> list[Tensor]:
    """Of each tensor of the output, the change of each sample that rounding explains.

    Args:
        probe: the network as it was.
        norms: those that will be fused.
        before: its output.
        again: its output once more: networks with atomic sums differ from run to run.

    Raises:
        RuntimeError: the network magnifies roundings so much on this probe that nothing could be seen.
    """
    moves = changes(before, again)
    for draw in range(DRAWS):
        moved = changes(before, _moved(probe, norms, draw))
        moves = [torch.maximum(*pair) for pair in zip(moves, moved, strict=True)]
    largest = magnitudes(before)
    epsilon = max(norm.epsilon for norm in norms)
    allowed = [MARGIN * move + ROUNDINGS * epsilon * size for move, size in zip(moves, largest, strict=True)]
    share = worst(allowed, largest)[0]
    if not share <= max(BLIND, BLIND_ROUNDINGS * epsilon):
        raise RuntimeError(
            f"net magnifies roundings on this probe so much that a change of {share:.1e} of its largest output says "
            "nothing; pass larger images or several samples (norms over a few pixels lose all digits), and a network "
            "whose output is the same at each call"
        )
    return allowed


def worst(change: list[Tensor], size: list[Tensor]) -> tuple[float, tuple[int, int]]:
    """The largest ratio of two lists as above, and where it is: tensor and sample; 0 / 0 is 0."""
    ratios = [torch.where(part == 0, 0.0, part / whole) for part, whole in zip(change, size, strict=True)]
    return max((ratio.max().item(), (which, int(ratio.argmax()))) for which, ratio in enumerate(ratios))


def _moved(probe: Probe, norms: list[Norm], draw: int) -> list[Tensor]:
    handles = []
    try:
        for number, norm in enumerate(norms):
            hook = _mover(norm.deviations, draw * len(norms) + number)
            handles.append(norm.module.register_forward_hook(hook, prepend=True))
        return probe.run()
    finally:
        for handle in handles:
            handle.remove()


def _mover(deviations: list[Tensor], draw: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    left = iter(deviations)

    def move(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        deviation = next(left, deviations[-1])
        up = rand(deviation.shape, seed=3, draw=draw, device=deviation.device) < 0.5
        by = torch.where(up, deviation, -deviation).to(out.dtype)
        return out + by.view(*by.shape, *[1] * (out.ndim - by.ndim))

    return move
