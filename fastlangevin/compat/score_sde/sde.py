"""The three diffusions of score_sde: ``VESDE``, ``VPSDE``, ``subVPSDE``, with their times, ladders and rules.

Time runs from 0, the data, to T = 1, the prior. Place i of the N places of a ladder or schedule is that of
t = i/(N - 1), 0 with the least noise: ascending, the other way round than the ladders of this package.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn, Unpack

import torch
from torch import Tensor

from fastlangevin import rules
from fastlangevin.ladders import ends, geometric_sigmas, positive
from fastlangevin.noise import Purpose, SampleOptions, check_samples, integer
from fastlangevin.ops import randn
from fastlangevin.rules import Coefficients, LinearBeta

__all__ = ["SDE", "VESDE", "VPSDE", "subVPSDE"]

# Of a time: fp32 can put one some roundings below the place that is meant, and the floor would take the place before.
ROUNDING = 2.0**-22


class Places:
    """Numbers at the N places, read at times that may live on a device."""

    def __init__(self, values: Sequence[Sequence[float]]) -> None:
        self.values = torch.tensor(values, dtype=torch.float64, device="cpu")
        self._on: dict[torch.device, Tensor] = {}

    def at(self, place: Tensor) -> Tensor:
        """``(columns, *place.shape)``, fp64."""
        if place.device not in self._on:
            self._on[place.device] = self.values.T.contiguous().to(place.device)
        return self._on[place.device][:, place]


def ascending(listed: list[Coefficients]) -> Places:
    """Rules in the order of sampling as a table by place, 0.0 for no noise."""
    return Places([(rule.c, rule.a, rule.b or 0.0) for rule in reversed(listed)])


def per_sample(value: Tensor, x: Tensor) -> Tensor:
    """``(B,)`` as a factor of ``(B, ...)``, in the dtype of ``x``."""
    return value.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


class SDE(ABC):
    """A diffusion with linear drift, dx = f(t) x dt + g(t) dW.

    Attributes:
        T: the last time, 1.
        N: places of the ladder or schedule, which is the number of a sampler's steps. It cannot be set: the tables are
            made for it.
    """

    T = 1.0
    scale_of_prior = 1.0
    # One rule for each place, for reverse diffusion and ancestral sampling; None where only Euler steps are defined.
    reversed_steps: Places | None = None
    ancestral: Places | None = None
    # 1 - beta_i, the correctors' alpha; None where it is 1.
    alphas_by_place: Places | None = None
    # Euler-Maruyama at t = T.
    euler_at_T: Coefficients

    def __init__(self, N: int) -> None:
        self._N = integer("N", N, 2, 10**6)

    @property
    def N(self) -> int:  # the published name
        """Places of the ladder or schedule."""
        return self._N

    @property
    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The parameters of the diffusion, by name, for the records of chains."""

    @abstractmethod
    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """f and g at the times, fp64."""

    @abstractmethod
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of the data and the standard deviation of the noise at the times, fp64."""

    def place(self, t: Tensor) -> Tensor:
        """The place of each time, int64: the floor of t (N - 1)/T, with room for the rounding of an fp32 time."""
        return ((t.double() + ROUNDING) * ((self.N - 1) / self.T)).long().clamp(0, self.N - 1)

    def alpha(self, t: Tensor) -> Tensor | float:
        """The factor of the correctors' steps: 1, or 1 - beta at the place of each time, fp64."""
        return 1.0 if self.alphas_by_place is None else self.alphas_by_place.at(self.place(t))[0]

    def euler(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c, a, b) of Euler-Maruyama at the times, fp64: the rule at T, by how f and g there compare with those at T.

        c - 1 goes with f, a with g^2, b with g.
        """
        end = torch.full_like(t, self.T, dtype=torch.float64)
        (f, g), (f_T, g_T) = self.rates(t), self.rates(end)
        c, a, b = self.euler_at_T
        ratio = g / g_T
        grown = 1 + (c - 1) * (f / f_T) if c != 1 else torch.ones_like(ratio)
        return grown, a * ratio**2, (b or 0.0) * ratio

    def sde(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Drift ``(B, ...)`` and diffusion ``(B,)`` at state ``x`` and times ``t``, ``(B,)``."""
        f, g = self.rates(t)
        return per_sample(f, x) * x, g.to(t.dtype)

    def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(B, ...)`` and standard deviation ``(B,)`` of the data ``x`` at times ``t``, ``(B,)``."""
        factor, std = self.scales(t)
        return per_sample(factor, x) * x, std.to(t.dtype)

    def discretize(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """f ``(B, ...)`` and G ``(B,)`` of a forward step x + f + G z from the place of ``t``."""
        c, _, b = self.euler(t) if self.reversed_steps is None else self.reversed_steps.at(self.place(t))
        # The reverse step is x - f(x) + ...: its factor of the state is 1 less the forward drift's, in Euler steps 1
        # less f/N as well.
        return per_sample(1 - c, x) * x, b.to(t.dtype)

    def reverse(self, *arguments: Any, **options: Any) -> NoReturn:
        """Not here: the ODE sampler and likelihoods, which take the reverse diffusion, keep the checkout's own.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "reverse() is not in fastlangevin.compat.score_sde; for the ODE sampler and likelihoods make the diffusion "
            "from the code base itself, before fastlangevin.patch() or after its undo()"
        )

    def prior_sampling(
        self,
        shape: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        **samples: Unpack[SampleOptions],
    ) -> Tensor:
        """States at T: N(0, sigma_max^2) for variance exploding, N(0, 1) for the others.

        Args:
            shape, dtype: as for :func:`fastlangevin.randn`.
            device: likewise, but the CPU if none is given.
            samples: the seed and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.
        """
        check_samples(samples)
        where = "cpu" if device is None else device
        z = randn(shape, purpose=Purpose.INITIAL_STATE, dtype=dtype, device=where, **samples)
        return z.mul_(self.scale_of_prior)


class VESDE(SDE):
    """Variance exploding: data + sigma(t) z, sigma(t) = sigma_min (sigma_max/sigma_min)^t.

    Args:
        sigma_min: the least noise level, in units of the data.
        sigma_max: the largest.
        N: levels of the geometric ladder between them.

    Raises:
        TypeError, ValueError: the levels do not ascend, or a number is out of range.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50, N: int = 1000) -> None:
        super().__init__(N)
        self.sigma_max, self.sigma_min = ends("sigma_max", sigma_max, "sigma_min", sigma_min)
        self.scale_of_prior = self.sigma_max
        self.ladder = geometric_sigmas(self.sigma_max, self.sigma_min, self.N)
        self.discrete_sigmas = self.ladder.flip(0).float()
        self.reversed_steps = ascending(rules.ve_reverse_diffusion(self.ladder))
        self.ancestral = ascending(rules.ve_ancestral(self.ladder))
        self.euler_at_T = rules.ve_euler_maruyama(self.ladder)[0]

    @property
    def record(self) -> dict[str, Any]:
        return {"name": type(self).__name__, "sigma_min": self.sigma_min, "sigma_max": self.sigma_max, "N": self.N}

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t.double()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t, dtype=torch.float64), self._sigma(t) * math.sqrt(
            2 * math.log(self.sigma_max / self.sigma_min)
        )

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t, dtype=torch.float64), self._sigma(t)


class _BetaSDE(SDE):
    """Base of VP and sub-VP: beta(t) = beta_min + t (beta_max - beta_min), and its N single steps."""

    def __init__(self, beta_min: float, beta_max: float, N: int) -> None:
        super().__init__(N)
        if positive("beta_max", beta_max) >= self.N:
            raise ValueError(
                f"beta_max/N, the beta of the last step, must be below 1, got {beta_max}/{self.N}; take a larger N"
            )
        self.schedule = LinearBeta(beta_min, beta_max, self.N)
        betas = self.schedule.betas()
        self.alpha_bars = rules.alpha_bars(betas)
        self.beta_0, self.beta_1 = self.schedule.beta_min, self.schedule.beta_max
        self.discrete_betas = torch.tensor(betas, dtype=torch.float32, device="cpu")
        self.alphas = 1 - self.discrete_betas
        self.alphas_by_place = Places([[1 - beta] for beta in betas])

    @property
    def record(self) -> dict[str, Any]:
        return {"name": type(self).__name__, "beta_min": self.beta_0, "beta_max": self.beta_1, "N": self.N}

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_0 + t.double() * (self.beta_1 - self.beta_0)

    def _integral(self, t: Tensor) -> Tensor:
        t = t.double()
        return t * self.beta_0 + t**2 / 2 * (self.beta_1 - self.beta_0)


class VPSDE(_BetaSDE):
    """Variance preserving: sqrt(alpha_bar(t)) data + sqrt(1 - alpha_bar(t)) z.

    Args:
        beta_min: beta(0).
        beta_max: beta(1), below N.
        N: single steps, whose betas go from beta_min/N to beta_max/N.

    Raises:
        TypeError, ValueError: a number is out of range.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20, N: int = 1000) -> None:
        super().__init__(beta_min, beta_max, N)
        betas = self.schedule.betas()
        self.reversed_steps = ascending(rules.vp_reverse_diffusion(betas))
        self.ancestral = ascending(rules.vp_ancestral(betas))
        self.euler_at_T = rules.vp_euler_maruyama(self.schedule)[0]
        # Of the noise after i single steps, for networks whose label is the place.
        self.stds_by_place = Places([[math.sqrt(1 - alpha_bar)] for alpha_bar in self.alpha_bars])

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = self._beta(t)
        return -beta / 2, beta.sqrt()

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        integral = self._integral(t)
        # expm1: 1 - alpha_bar cancels near t = 0.
        return torch.exp(-integral / 2), torch.sqrt(-torch.expm1(-integral))


class subVPSDE(_BetaSDE):  # noqa: N801  # the published name
    """Sub-VP: sqrt(alpha_bar(t)) data + (1 - alpha_bar(t)) z, with less noise than VP at all times. Euler steps only.

    Args:
        beta_min, beta_max, N: as for :class:`VPSDE`.

    Raises:
        TypeError, ValueError: a number is out of range.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20, N: int = 1000) -> None:
        super().__init__(beta_min, beta_max, N)
        self.euler_at_T = rules.subvp_euler_maruyama(self.schedule)[0]

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = self._beta(t)
        return -beta / 2, torch.sqrt(beta * -torch.expm1(-2 * self._integral(t)))

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        integral = self._integral(t)
        return torch.exp(-integral / 2), -torch.expm1(-integral)
