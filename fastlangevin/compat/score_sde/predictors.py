"""Predictors: ``euler_maruyama``, ``reverse_diffusion``, ``ancestral_sampling``, ``none``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from fastlangevin.calling import Guarded
from fastlangevin.compat.score_sde.draws import AddressedNoise
from fastlangevin.compat.score_sde.registry import register_predictor
from fastlangevin.compat.score_sde.sde import SDE

__all__ = [
    "AncestralSamplingPredictor",
    "EulerMaruyamaPredictor",
    "NonePredictor",
    "Predictor",
    "ReverseDiffusionPredictor",
    "RulePredictor",
]

ScoreAtTime = Callable[[Tensor, Tensor], Tensor]
# c, a and b at times, fp64; b is None where no noise is drawn.
RuleAtTimes = tuple[Tensor, Tensor, Tensor | None]


class Predictor(ABC):
    """A step of the reverse diffusion, from the noise level of a time to the next.

    Args:
        sde: the diffusion.
        score_fn: called as ``score_fn(x, t)`` with times ``(B,)``, returns the score; see :func:`get_score_fn`.
        probability_flow: the deterministic flow instead: half the score's coefficient, and no noise.
        noise: the addresses of the noise, which a corrector of the same chain must share; new ones by default.
    """

    def __init__(
        self, sde: SDE, score_fn: ScoreAtTime, probability_flow: bool = False, *, noise: AddressedNoise | None = None
    ) -> None:
        self.sde, self.probability_flow = sde, probability_flow
        self.score_fn: ScoreAtTime = Guarded("score_fn", score_fn)
        self.noise = AddressedNoise() if noise is None else noise

    @abstractmethod
    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and its mean before the noise, from state ``(B, ...)`` and times ``(B,)``."""


class RulePredictor(Predictor):
    """A predictor whose coefficients are those of a rule of the time: c x + a score + b z."""

    @abstractmethod
    def reverse_rule(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c, a and b of the reverse diffusion at the times, fp64."""

    def rule(self, t: Tensor) -> RuleAtTimes:
        """c, a and b at the times, fp64."""
        c, a, b = self.reverse_rule(t)
        return (c, a / 2, None) if self.probability_flow else (c, a, b)

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.noise.update(x, self.score_fn(x, t), *self.rule(t))


@register_predictor(name="euler_maruyama")
class EulerMaruyamaPredictor(RulePredictor):
    """Euler-Maruyama steps of 1/N: ``rules.ve_euler_maruyama`` and its like for VP and sub-VP, at any time.

    Args:
        sde, score_fn, probability_flow, noise: as for :class:`Predictor`.
    """

    def reverse_rule(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.sde.euler(t)


@register_predictor(name="reverse_diffusion")
class ReverseDiffusionPredictor(RulePredictor):
    """``rules.ve_reverse_diffusion``, ``rules.vp_reverse_diffusion``; for sub-VP, Euler-Maruyama.

    Args:
        sde, score_fn, probability_flow, noise: as for :class:`Predictor`.
    """

    def reverse_rule(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        table = self.sde.reversed_steps
        if table is None:
            return self.sde.euler(t)
        c, a, b = table.at(self.sde.place(t))
        return c, a, b


@register_predictor(name="ancestral_sampling")
class AncestralSamplingPredictor(RulePredictor):
    """``rules.ve_ancestral``, ``rules.vp_ancestral``; there is none for sub-VP, and no flow.

    Args:
        sde, score_fn, probability_flow, noise: as for :class:`Predictor`.

    Raises:
        ValueError: ``sde`` has no ancestral sampling, or ``probability_flow`` is asked for.
    """

    def __init__(
        self, sde: SDE, score_fn: ScoreAtTime, probability_flow: bool = False, *, noise: AddressedNoise | None = None
    ) -> None:
        super().__init__(sde, score_fn, probability_flow, noise=noise)
        if sde.ancestral is None:
            raise ValueError(
                f"predictor ancestral_sampling is defined for VESDE and VPSDE, got {type(sde).__name__}; "
                "euler_maruyama and reverse_diffusion fit it"
            )
        if probability_flow:
            raise ValueError(
                "probability_flow=True has no ancestral sampling; use reverse_diffusion or euler_maruyama, or False"
            )
        self._table = sde.ancestral

    def reverse_rule(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c, a, b = self._table.at(self.sde.place(t))
        return c, a, b


@register_predictor(name="none")
class NonePredictor(Predictor):
    """No step: the state twice. Calls no network.

    Args:
        sde, score_fn, probability_flow, noise: as for :class:`Predictor`.
    """

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, x
