"""The lists that the published samplers return, kept on the state's device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastlangevin.calling import Guarded
from fastlangevin.compat.verbose import Verbose
from fastlangevin.noise import integer
from fastlangevin.samplers import SamplingResult, StepInfo
from fastlangevin.samplers.options import check_names

__all__ = ["listed"]


class After:
    """The states after ``every``, 2 ``every``, ... updates and after the last: a callback of a sampler.

    Args:
        every: None keeps none.
        others: further callbacks.
    """

    def __init__(self, every: int | None, others: list[Callable[[StepInfo], Any]]) -> None:
        self.every = every
        self.others = others
        self.states: list[Tensor] = []
        self.stopped = False

    def __call__(self, info: StepInfo) -> bool:
        asked = [bool(each(info)) for each in self.others]
        self.stopped = any(asked)
        last = info.step == info.steps or self.stopped
        if self.every is not None and (info.step % self.every == 0 or last):
            self.states.append(info.x.clone())
        return self.stopped


class Before:
    """The states before the updates 0, ``every``, 2 ``every``, ...: a score that looks at what it is given.

    So the last state is never among them, as published. A replay of a CUDA graph would not call it: samplers that are
    given one need ``cuda_graph=False``. A score that fails for want of gradients is called again in here, so that its
    state is kept once.
    """

    def __init__(self, score: Callable[..., Tensor], every: int, clamp: tuple[float, float] | None, calls: int) -> None:
        self.__wrapped__ = score
        self.score = Guarded("scorenet", score)
        self.every = every
        self.clamp = clamp
        self.calls = calls
        self.states: list[Tensor] = []

    def __call__(self, x: Tensor, *level: Any) -> Tensor:
        if self.calls % self.every == 0:
            self.states.append(x.clone() if self.clamp is None else x.clamp(*self.clamp))
        self.calls += 1
        return self.score(x, *level)


def listed(
    sampler: Callable[..., Tensor | SamplingResult],
    net: Callable[..., Tensor],
    kind: type[Any],
    given: Any,
    *,
    clamp: tuple[float, float] | None = None,
    final_only: bool = False,
    verbose: Verbose | None = None,
    denoise: bool = False,
) -> list[Tensor] | SamplingResult:
    """Runs a sampler on a network.

    Args:
        sampler: called with a network and the options of :class:`fastlangevin.samplers.RunOptions`.
        net: the network.
        kind: what the caller's options are.
        given: the caller's options. With ``full_output`` the result is returned in the place of a list.
        clamp: of the states before the updates, if ``strict`` asks for those.
        final_only: list the samples alone.
        verbose: prints a line for each update.
        denoise: whether the samples differ from the last state, and are listed as well.

    Returns:
        The states after the updates, or with ``strict`` those before.
    """
    check_names(kind, given)
    options = dict(given)
    every = integer("keep_every", options.pop("keep_every", 1), 1, 2**32)
    strict, full_output = options.pop("strict", False), options.get("full_output", False)
    callback = options.pop("callback", None)
    others = [each for each in (None if verbose is None else verbose.show, callback) if each is not None]
    before: Before | None = None
    if strict:
        if options.get("cuda_graph") is True:
            raise ValueError("cuda_graph=True replays calls of the network, which strict=True looks at; leave one out")
        resume = options.get("resume")
        before = Before(net, every, clamp, 0 if resume is None else resume.step)
        options["cuda_graph"] = False
    after = After(None if strict or final_only or full_output else every, others)
    looks = after.every is not None or others
    samples = sampler(before or verbose or net, callback=after if looks else None, **options)
    if isinstance(samples, SamplingResult):
        return samples
    if before is not None:
        return before.states
    if final_only:
        return [samples]
    return [*after.states, samples] if denoise and not after.stopped else after.states
