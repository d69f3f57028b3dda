"""The chains of score_sde as schemes: a step for each time, of the corrector's rows and then the predictor's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastlangevin import rules
from fastlangevin.compat.addresses import samples_of
from fastlangevin.compat.score_sde.correctors import (
    AnnealedLangevinDynamics,
    Corrector,
    LangevinCorrector,
    NoneCorrector,
)
from fastlangevin.compat.score_sde.draws import AddressedNoise
from fastlangevin.compat.score_sde.known import Known
from fastlangevin.compat.score_sde.predictors import (
    AncestralSamplingPredictor,
    EulerMaruyamaPredictor,
    NonePredictor,
    Predictor,
    ReverseDiffusionPredictor,
    RuleAtTimes,
)
from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.noise import Address
from fastlangevin.schemes import Apply, Evaluate, Measure, Move, Row, Step

__all__ = ["Chain", "OthersSteps", "RuleSteps", "denoising", "has_rules"]

# By type and not by isinstance: a class of others that is made of one of these may do something else.
WITH_RULES = {
    EulerMaruyamaPredictor,
    ReverseDiffusionPredictor,
    AncestralSamplingPredictor,
    NonePredictor,
    LangevinCorrector,
    AnnealedLangevinDynamics,
    NoneCorrector,
}


def has_rules(predictor: Any, corrector: Any) -> bool:
    """Returns whether the steps of a predictor and a corrector are rows of a table."""
    return {type(predictor), type(corrector)} <= WITH_RULES


class Chain(NamedTuple):
    """The parts that the steps of a chain are made of.

    Attributes:
        sde: the diffusion.
        predictor, corrector: of its times.
        times: ``(N,)``, in the dtype and on the device that the state is computed in.
        known: what is known of the data, or None.
        denoise: whether the last step gives its mean, before its noise.
        strict: whether that is the published mean.
    """

    sde: SDE
    predictor: Any
    corrector: Any
    times: Tensor
    known: Known | None
    denoise: bool
    strict: bool

    @property
    def tweedie(self) -> bool:
        """Returns whether there is a step to the posterior mean, since the predictor has no mean of its own."""
        return self.denoise and not self.strict and isinstance(self.predictor, NonePredictor)

    def ends(self, number: int) -> bool:
        """Returns whether a step gives a mean of its own as the result."""
        return self.denoise and not self.tweedie and number == len(self.times) - 1

    def time(self, number: int) -> Tensor:
        """The time ``(1,)`` of a step."""
        return self.times[number, None]

    def puts(self, number: int, draws: Iterator[int]) -> list[Row]:
        """The row that puts in what is known, at the noise level of a step."""
        if self.known is None:
            return []
        return [Apply(partial(self.known.perturbed, time=self.time(number)), "known", next(draws))]

    def puts_mean(self, number: int) -> list[Row]:
        """The row that puts in the mean of what is known."""
        return [] if self.known is None else [Apply(partial(self.known.mean, time=self.time(number)), "known")]


def denoising(chain: Chain, eps: float) -> Step:
    """The step to the posterior mean of the data at the last time, (x + std^2 score)/m of data m data + std z."""
    last = len(chain.times) - 1
    end = torch.tensor(eps, dtype=torch.float64, device="cpu")
    factor, std = (float(each) for each in chain.sde.scales(end))
    c, a, _ = rules.denoise(std)
    row = Move("x", {"x": c / factor, "score": a / factor}, evaluate=Evaluate(level=last, sigma=std, alpha=factor))
    return Step((row, *chain.puts_mean(last)), last)


class RuleSteps:
    """The steps by their number, of a predictor and a corrector that are rules of the time."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        times = chain.times.cpu()
        self.factors, self.stds = (each.tolist() for each in chain.sde.scales(times))
        alphas: Any = chain.sde.alpha(times)
        self.alphas = alphas.tolist() if isinstance(alphas, Tensor) else [alphas] * len(times)
        predictor, corrector = chain.predictor, chain.corrector
        self.predicted = None if isinstance(predictor, NonePredictor) else _listed(predictor.rule(times))
        self.corrected = _listed(corrector.rule(times)) if isinstance(corrector, AnnealedLangevinDynamics) else None
        self.corrections = 0 if isinstance(corrector, NoneCorrector) else corrector.n_steps
        noisy = self.predicted is not None and self.predicted[0][2] is not None
        self.draws_per_step = self.corrections + noisy + 2 * (chain.known is not None)
        self.total = len(times) if self.draws_per_step or self.predicted else 0

    def __call__(self, number: int) -> Step:
        """The corrector's rows, then the predictor's, each followed by what is known."""
        chain, draws = self.chain, count()
        at = Evaluate(level=number, sigma=self.stds[number], alpha=self.factors[number])
        rows = [self._corrected(number, at, next(draws)) for _ in range(self.corrections)]
        rows += chain.puts(number, draws)
        ends = chain.ends(number)
        # The published mean of what is sought is the noisy state where a part is known.
        means = ends and not (chain.strict and chain.known is not None)
        if self.predicted is not None:
            c, a, b = self.predicted[number]
            noisy = b is not None and not means
            rows.append(Move("x", {"x": c, "score": a}, b if noisy else None, next(draws) if noisy else 0, at))
        rows += chain.puts_mean(number) if means else chain.puts(number, draws)
        if ends and not means:
            rows += chain.puts_mean(number)
        return Step(tuple(rows), number)

    def _corrected(self, number: int, at: Evaluate, draw: int) -> Row:
        corrector = self.chain.corrector
        if isinstance(corrector, LangevinCorrector):
            return Measure(corrector.snr, corrector.norm, self.alphas[number], at, draw)
        assert self.corrected is not None
        c, a, b = self.corrected[number]
        return Move("x", {"x": c, "score": a}, b, draw, at)


def _listed(rule: RuleAtTimes) -> list[tuple[float, float, float | None]]:
    c, a, b = rule
    return list(zip(c.tolist(), a.tolist(), [None] * len(c) if b is None else b.tolist(), strict=True))


class OthersSteps:
    """The steps by their number, of a predictor or a corrector of others: one call of both, which draw as they will."""

    draws_per_step = 1

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.total = len(chain.times)
        self.noise = AddressedNoise()

    def __call__(self, number: int) -> Step:
        return Step((Apply(partial(self.turn, number), "update_fn", 0),), number)

    def turn(self, number: int, x: Tensor, address: Address) -> Tensor:
        """The state after the corrector and the predictor of a time."""
        chain, known = self.chain, self.chain.known
        time = chain.time(number)
        if not number:
            self.noise = AddressedNoise(**samples_of(address))
            self.noise.draws = int(address.draw)
        # They may keep what they are given, and the chain goes on in the memory of its state.
        x = x.clone()
        mean = x
        for each in (chain.corrector, chain.predictor):
            if isinstance(each, Predictor | Corrector):
                each.noise = self.noise
            x, mean = each.update_fn(x, time.repeat(len(x)))
            if known is not None:
                x = known.perturbed(x, self.noise.address(x), time=time)
                mean = known.mean(x if chain.strict else mean, time=time)
        return mean if chain.ends(number) else x
