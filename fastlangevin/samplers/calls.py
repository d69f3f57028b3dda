"""Calls of a user's score by a sampler: with labels or without them, and with a drift."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.calling import Guarded, check_kept, counted, version
from fastlangevin.mixture import GaussianMixture, PerturbedMixture
from fastlangevin.samplers.options import ChainOptions, check_callable
from fastlangevin.samplers.stepping import Level
from fastlangevin.schemes import Scheme
from fastlangevin.scores import ScoreFunction, check_ladder

__all__ = ["Score", "ScoreCalls", "check_score", "score_calls"]

Score = ScoreFunction | Callable[[Tensor], Tensor] | GaussianMixture
CALLS = {"labels": "score(x, labels)", "nothing": "score(x)"}


class ScoreCalls(NamedTuple):
    """A score as the steps of a chain call it.

    Attributes:
        at: ``at(x, level)``, with the drift if there is one.
        plain: without it, for the denoise step.
        source: what may make many updates at once: see :class:`fastlangevin.chain_score.ChainScore`.
    """

    at: Callable[[Tensor, Level], Tensor]
    plain: Callable[[Tensor, Level], Tensor]
    source: object


def check_score(score: object, scheme: Scheme) -> None:
    """Raises unless a score is a mixture, or can be called as the scheme calls it."""
    if isinstance(score, GaussianMixture):
        if scheme.takes == "labels" and not scheme.ladder:
            raise ValueError(
                f"a GaussianMixture needs a ladder of noise levels, which the scheme {scheme.name} has not"
            )
        return
    call = CALLS[scheme.takes]
    check_callable("score", score, call)
    try:
        signature = inspect.signature(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    wanted = call.count(",") + 1
    try:
        signature.bind(*[None] * wanted)
    except TypeError:
        raise ValueError(
            f"score must be called as {call} for the scheme {scheme.name}, but takes {signature}; "
            "fastlangevin.adapt makes a score of labels from a network of another convention"
        ) from None


def score_calls(score: Score, scheme: Scheme, options: ChainOptions) -> ScoreCalls:
    """A checked score as a chain calls it.

    Raises:
        ValueError: the score was built with another ladder, and ``options["strict_ladder"]`` is true.
    """
    if scheme.takes == "nothing":
        return _unlabelled(score, options)
    if scheme.ladder:
        check_ladder(score, scheme.ladder, options["strict_ladder"])
    if isinstance(score, GaussianMixture):
        score = PerturbedMixture(score, scheme.ladder, options["impl"])
    called: Any = score if isinstance(score, PerturbedMixture) else Guarded("score", score, in_place=True)
    plain = _Labelled(called)
    drift = None if options["drift"] is None else Guarded("drift", options["drift"], like_state=False)

    def drifting(x: Tensor, level: Level) -> Tensor:
        assert drift is not None
        value = plain(x, level)
        count = version(value)
        moved = drift(x, plain.labels(x, level))
        check_kept("score", value, count, "drift")
        return value + moved

    return ScoreCalls(plain if drift is None else drifting, plain, score)


def _unlabelled(score: Score, options: ChainOptions) -> ScoreCalls:
    source: object = None  # the kernel of another score would take its first level
    called: Any
    if isinstance(score, GaussianMixture):
        source = mixture = PerturbedMixture(score, [0.0], options["impl"])
        called = mixture.at_one_level
    else:
        called = Guarded("score", score, in_place=True)

    def at_one_level(x: Tensor, level: Level) -> Tensor:
        value: Tensor = called(x)
        return value

    return ScoreCalls(at_one_level, at_one_level, source)


class _Labelled:
    """A score of labels, called with the index of a level. The labels of one level alone are kept."""

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.score = score
        self.level = -1
        self.kept = torch.empty(0, dtype=torch.int64, device="cpu")

    def labels(self, x: Tensor, level: Level) -> Tensor:
        """The label of each sample, int64 ``(B,)``."""
        if isinstance(level, Tensor):
            return level
        if self.level != (level or 0):
            self.level = level or 0
            with counted():
                self.kept = torch.full((x.shape[0],), self.level, dtype=torch.int64, device=x.device)
        return self.kept

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        return self.score(x, self.labels(x, level))
