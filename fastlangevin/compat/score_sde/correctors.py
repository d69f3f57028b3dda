"""Correctors: ``langevin``, ``ald``, ``none``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fastlangevin import rules
from fastlangevin.calling import Guarded
from fastlangevin.compat.score_sde.draws import AddressedNoise
from fastlangevin.compat.score_sde.predictors import RuleAtTimes, ScoreAtTime
from fastlangevin.compat.score_sde.registry import register_corrector
from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.ladders import positive
from fastlangevin.noise import integer
from fastlangevin.ops.sample_norms import NO_ADDRESS
from fastlangevin.rules import SignalNorm
from fastlangevin.samplers import signal
from fastlangevin.schemes import Measure

__all__ = ["AnnealedLangevinDynamics", "Corrector", "LangevinCorrector", "NoneCorrector"]


class Corrector(ABC):
    """Langevin steps at the noise level of a time.

    Args:
        sde: the diffusion.
        score_fn: called as ``score_fn(x, t)`` with times ``(B,)``, returns the score; see :func:`get_score_fn`.
        snr: the signal-to-noise ratio of a step, typically 0.05 to 0.2; above zero.
        n_steps: steps in a call of ``update_fn``, 1 or more.
        noise: the addresses of the noise, which a predictor of the same chain must share; new ones by default.

    Raises:
        TypeError, ValueError: ``snr`` or ``n_steps`` is out of range.
    """

    def __init__(
        self, sde: SDE, score_fn: ScoreAtTime, snr: float, n_steps: int, *, noise: AddressedNoise | None = None
    ) -> None:
        self.sde = sde
        self.score_fn: ScoreAtTime = Guarded("score_fn", score_fn)
        self.snr, self.n_steps = positive("snr", snr), integer("n_steps", n_steps, 1, 2**31)
        self.noise = AddressedNoise() if noise is None else noise

    @abstractmethod
    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and its mean before the noise, from state ``(B, ...)`` and times ``(B,)``."""


@register_corrector(name="langevin")
class LangevinCorrector(Corrector):
    """``rules.signal_to_noise``: the step is 2 alpha (snr ||z||/||score||)^2, measured at every step.

    Args:
        sde, score_fn, snr, n_steps, noise: as for :class:`Corrector`.
        norm: how the ratio is taken, a :data:`fastlangevin.rules.SignalNorm`. ``"batch"``, as published, couples a
            sample to its batch mates; ``"sample"`` and ``"sqrt_d"`` do not.

    Raises:
        TypeError, ValueError: an argument is out of range, or ``norm`` is not known.
    """

    def __init__(
        self,
        sde: SDE,
        score_fn: ScoreAtTime,
        snr: float,
        n_steps: int,
        *,
        norm: SignalNorm = "batch",
        noise: AddressedNoise | None = None,
    ) -> None:
        super().__init__(sde, score_fn, snr, n_steps, noise=noise)
        self.norm = Measure(self.snr, norm).norm

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        mean = x
        for step in range(self.n_steps):
            score = self.score_fn(x, t)
            noise = None if self.norm == "sqrt_d" else self.noise.normals(x)
            a, b = signal.grown(self.snr, signal.ratio(self.norm, score, NO_ADDRESS, noise), self.sde.alpha(t))
            x, mean = self.noise.update(x, score, 1.0, a, b, mean=step == self.n_steps - 1, noise=noise)
        return x, mean


@register_corrector(name="ald")
class AnnealedLangevinDynamics(Corrector):
    """``rules.annealed_corrector``: the step is 2 alpha (snr std)^2, std that of ``marginal_prob`` at the time.

    Args:
        sde, score_fn, snr, n_steps, noise: as for :class:`Corrector`.
    """

    def rule(self, t: Tensor) -> RuleAtTimes:
        """c, a and b at the times, fp64."""
        _, a, b = rules.annealed_corrector(self.snr, 1.0)
        _, std = self.sde.scales(t)
        alpha = self.sde.alpha(t)
        return torch.ones_like(std), (a * alpha) * std**2, ((b or 0.0) * alpha**0.5) * std

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        rule, mean = self.rule(t), x
        for step in range(self.n_steps):
            x, mean = self.noise.update(x, self.score_fn(x, t), *rule, mean=step == self.n_steps - 1)
        return x, mean


@register_corrector(name="none")
class NoneCorrector(Corrector):
    """No step: the state twice. Calls no network, and takes any ``snr`` and ``n_steps``.

    Args:
        sde, score_fn, snr, n_steps, noise: as for :class:`Corrector`.
    """

    def __init__(
        self,
        sde: SDE,
        score_fn: ScoreAtTime,
        snr: float = 1.0,
        n_steps: int = 1,
        *,
        noise: AddressedNoise | None = None,
    ) -> None:
        super().__init__(sde, score_fn, 1.0, 1, noise=noise)

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, x
