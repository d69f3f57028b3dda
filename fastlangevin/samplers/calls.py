"""Calls of a user's score by a sampler: with labels or without them, and with a drift."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin.calling import Guarded, check_kept, counted, version
from fastlangevin.mixture import GaussianMixture, PerturbedMixture
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.samplers.options import ChainOptions, check_callable
from fastlangevin.samplers.stepping import Level
from fastlangevin.schemes import Scheme
from fastlangevin.scores import ScoreFunction, check_ladder

__all__ = ["Score", "ScoreCalls", "check_score", "score_calls"]

Score = ScoreFunction | Callable[[Tensor], Tensor] | GaussianMixture
CALLS = {"labels": "score(x, labels)", "sigma": "score(x, sigma)", "nothing": "score(x)"}


class ScoreCalls(NamedTuple):
    """A score as the steps of a chain call it.

    Attributes:
        at: ``at(x, level)``, with the drift if there is one.
        without_drift: the score alone, for the denoise step.
        source: what may make many updates at once: see :class:`fastlangevin.chain_score.ChainScore`.
        renew: to be called when a chain begins and after every callback, which may change a network's weights.
    """

    at: Callable[[Tensor, Level], Tensor]
    without_drift: Callable[[Tensor, Level], Tensor]
    source: object
    renew: Callable[[], None] = lambda: None


def check_score(score: object, scheme: Scheme) -> None:
    """Raises unless a score is a mixture, or can be called as the scheme calls it."""
    if isinstance(score, GaussianMixture):
        if scheme.output != "score" or scheme.takes == "sigma":
            raise ValueError(
                f"a GaussianMixture has the exact score at labels, but the scheme {scheme.name} is one of "
                f"takes={scheme.takes!r} and output={scheme.output!r}; take the scheme of scores"
            )
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
        ValueError: the score was built with another ladder, and ``options["strict_ladder"]`` is true; or an option
            needs the score of a network that returns something else.
    """
    if scheme.output != "score":
        for name in ("drift", "telemetry"):
            if options[name]:  # type: ignore[literal-required]
                raise ValueError(f"{name}= needs the score, but the network of {scheme.name} returns {scheme.output!r}")
    if scheme.takes == "nothing":
        return _unlabelled(score, options)
    if scheme.takes == "sigma":
        net: Any = score
        told = _Told(Guarded("score", net, in_place=True), scheme.ladder)
        return ScoreCalls(told, told, None)
    if scheme.ladder:
        check_ladder(score, scheme.ladder, options["strict_ladder"])
    if isinstance(score, GaussianMixture):
        score = PerturbedMixture(score, scheme.ladder, options["impl"])
    called: Any = score if isinstance(score, PerturbedMixture) else Guarded("score", score, in_place=True)
    plain = _Labelled(called, getattr(score, "at_level", None))
    drift = None if options["drift"] is None else Guarded("drift", options["drift"], like_state=False)

    def drifting(x: Tensor, level: Level) -> Tensor:
        assert drift is not None
        value = plain(x, level)
        count = version(value)
        moved = drift(x, plain.labels(x, level))
        check_kept("score", value, count, "drift")
        return value + moved

    # A kernel of whole chains computes the score.
    source = score if scheme.output == "score" else None
    return ScoreCalls(plain if drift is None else drifting, plain, source, plain.renew)


def _unlabelled(score: Score, options: ChainOptions) -> ScoreCalls:
    source: object = None  # a kernel of a score of labels would take its first level
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


class _Told:
    """A network of noise levels, called with the index of a level. Its table is on the state's device."""

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor], ladder: list[float]) -> None:
        self.net = net
        self.ladder = torch.tensor(ladder, dtype=torch.float64, device="cpu")
        self.table: Tensor | None = None

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        if self.table is None or self.table.device != x.device or self.table.dtype != x.dtype:
            self.table = self.ladder.to(x.device, compute_dtype(x)).to(x.dtype)
        return self.net(x, self.table[level] if isinstance(level, Tensor) else self.table[level or 0].expand(len(x)))


class _Labelled:
    """A score of labels, called with the index of a level. What belongs to one level alone is kept.

    Args:
        score: called as ``score(x, labels)``.
        at_level: as :meth:`fastlangevin.models.MLP.at_level`, of a network that is faster at a level that is known; or
            None.
    """

    def __init__(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        at_level: Callable[[Tensor, int], Callable[[Tensor], Tensor] | None] | None = None,
    ) -> None:
        self.score = score
        self.at_level = at_level
        self.of_state: Callable[[Tensor], Tensor] | None = None
        self.prepared = -1
        self.level = -1
        self.kept = torch.empty(0, dtype=torch.int64, device="cpu")

    def renew(self) -> None:
        """Reads the network's weights anew before the next call."""
        self.prepared = -1

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
        if self.at_level is not None and not isinstance(level, Tensor):
            if self.prepared != (level or 0):
                self.prepared = level or 0
                self.of_state = self.at_level(x, self.prepared)
            if self.of_state is not None:
                return self.of_state(x)
        return self.score(x, self.labels(x, level))
