"""From a score function of labels to a chain on a ladder."""

from __future__ import annotations

import torch
from torch import Tensor

from fastlangevin.calling import Guarded, check_kept, counted, version
from fastlangevin.mixture import GaussianMixture, PerturbedMixture
from fastlangevin.samplers.chain import SamplingResult
from fastlangevin.samplers.engine import run
from fastlangevin.samplers.options import ChainOptions, check_callable
from fastlangevin.samplers.plan import Level, Plan
from fastlangevin.samplers.start import begin
from fastlangevin.scores import ScoreFunction, check_ladder

__all__ = ["Score", "check_score", "run_labelled"]

Score = ScoreFunction | GaussianMixture


def check_score(score: object) -> None:
    if not isinstance(score, GaussianMixture):
        check_callable("score", score, "score(x, labels)")


def run_labelled(score: Score, plan: Plan, options: ChainOptions) -> Tensor | SamplingResult:
    """Runs a chain whose score takes the level of each sample, int64 ``(B,)``, or is a mixture's on the ladder.

    Raises:
        ValueError: the score was built with another ladder, and ``options["strict_ladder"]`` is true.
    """
    check_ladder(score, plan.ladder, options["strict_ladder"])
    if isinstance(score, GaussianMixture):
        score = PerturbedMixture(score, plan.ladder, options["impl"])
    called: ScoreFunction = score if isinstance(score, PerturbedMixture) else Guarded("score", score, in_place=True)
    start = begin(plan, plan.ladder[0], options)
    batch, device = start.x.shape[0], start.x.device
    # Those of one level alone: of all they are more than the state, where samples are small and levels many.
    last, labels = -1, torch.empty(0, dtype=torch.int64, device=device)

    def at(level: Level) -> Tensor:
        nonlocal last, labels
        if isinstance(level, Tensor):
            return level
        if last != (level or 0):
            last = level or 0
            with counted():
                labels = torch.full((batch,), last, dtype=torch.int64, device=device)
        return labels

    def plain(x: Tensor, level: Level) -> Tensor:
        return called(x, at(level))

    drift = None if options["drift"] is None else Guarded("drift", options["drift"], like_state=False)

    def drifting(x: Tensor, level: Level) -> Tensor:
        assert drift is not None
        value = plain(x, level)
        count = version(value)
        moved = drift(x, at(level))
        check_kept("score", value, count, "drift")
        return value + moved

    result = run(plain if drift is None else drifting, plain, plan, start, options, score)
    return result if options["full_output"] else result.samples
