"""Correctors: ``langevin``, ``ald``, ``none``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from fastlangevin import rules
from fastlangevin.calling import Guarded
from fastlangevin.compat.score_sde.draws import AddressedNoise
from fastlangevin.compat.score_sde.predictors import ScoreAtTime
from fastlangevin.compat.score_sde.registry import register_corrector
from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.ladders import positive
from fastlangevin.noise import integer
from fastlangevin.ops.sample_norms import NO_ADDRESS
from fastlangevin.rules import Coefficients, SignalNorm
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

    Attributes:
        means: whether ``update_fn`` makes the mean of its last step, for one more pass over the state; else it returns
            the state twice.

    Raises:
        TypeError, ValueError: ``snr`` or ``n_steps`` is out of range.
    """

    means = True

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

    def _grown(self, rule: Coefficients, t: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """a and b of a rule at alpha = 1, for the diffusion's alpha at the times: a goes with it, b with its root."""
        alpha = self.sde.alpha(t)
        return rule.a * alpha, (rule.b or 0.0) * alpha**0.5

    def _wants_mean(self, step: int) -> bool:
        return self.means and step == self.n_steps - 1


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
        a, b = self._grown(rules.signal_to_noise(self.snr, 1.0), t)
        mean = x
        for index in range(self.n_steps):
            score = self.score_fn(x, t)
            noise = None if self.norm == "sqrt_d" else self.noise.normals(x)
            ratio = signal.ratio(self.norm, score, NO_ADDRESS, noise)
            wanted = self._wants_mean(index)
            x, mean = self.noise.update(x, score, 1.0, a * ratio**2, b * ratio, mean=wanted, noise=noise)
        return x, mean


@register_corrector(name="ald")
class AnnealedLangevinDynamics(Corrector):
    """``rules.annealed_corrector``: the step is 2 alpha (snr std)^2, std that of ``marginal_prob`` at the time.

    Args:
        sde, score_fn, snr, n_steps, noise: as for :class:`Corrector`.
    """

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self._grown(rules.annealed_corrector(self.snr, 1.0), t)
        _, std = self.sde.scales(t)
        mean = x
        for index in range(self.n_steps):
            score = self.score_fn(x, t)
            x, mean = self.noise.update(x, score, 1.0, a * std**2, b * std, mean=self._wants_mean(index))
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
