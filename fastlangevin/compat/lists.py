"""The lists that the published samplers return, kept on the state's device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastlangevin.calling import Guarded
from fastlangevin.noise import integer
from fastlangevin.samplers import StepInfo

__all__ = ["After", "Before", "listed"]


class After:
    """The states after ``every``, 2 ``every``, ... updates and after the last: a callback of a sampler."""

    def __init__(self, every: int) -> None:
        self.every = integer("keep_every", every, 1, 2**32)
        self.states: list[Tensor] = []

    def __call__(self, info: StepInfo) -> None:
        if info.step % self.every == 0 or info.step == info.steps:
            self.states.append(info.x.clone())


class Before:
    """The states before the updates 0, ``every``, 2 ``every``, ...: a score that looks at what it is given.

    So the last state is never among them, as published. A replay of a CUDA graph would not call it: samplers that are
    given one need ``cuda_graph=False``. A score that fails for want of gradients is called again in here, so that its
    state is kept once.
    """

    def __init__(self, score: Callable[..., Tensor], every: int, clamp: tuple[float, float] | None = None) -> None:
        self.__wrapped__ = score
        self.score = Guarded("scorenet", score)
        self.every = integer("keep_every", every, 1, 2**32)
        self.clamp = clamp
        self.calls = 0
        self.states: list[Tensor] = []

    def __call__(self, x: Tensor, *level: Any) -> Tensor:
        if self.calls % self.every == 0:
            self.states.append(x.clone() if self.clamp is None else x.clamp(*self.clamp))
        self.calls += 1
        return self.score(x, *level)


def listed(
    sampler: Callable[..., object],
    score: Callable[..., Tensor],
    every: int,
    strict: bool,
    clamp: tuple[float, float] | None = None,
) -> list[Tensor]:
    """Runs a sampler on a score: the states after its updates; or with ``strict`` those before, clamped."""
    before, after = Before(score, every, clamp), After(every)
    if strict:
        sampler(before, cuda_graph=False)
    else:
        sampler(score, callback=after)
    return before.states if strict else after.states
