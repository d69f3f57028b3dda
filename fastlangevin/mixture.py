"""Gaussian mixtures whose score is known exactly at every noise level: targets for samplers, and their oracles.

Perturbed by noise of standard deviation sigma, a mixture stays one, with sigma^2 added to every variance:

    p_sigma = sum_k weight_k N(mean_k, variance_k + sigma^2)

That is the density whose score denoising score matching learns, and which samplers on a ladder go through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, Unpack

import torch
from torch import Tensor

from fastlangevin.chain_score import ChainKernel, Segment
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.memory import lasting, observed, transforms
from fastlangevin.noise import Purpose, SampleOptions, integer
from fastlangevin.ops import mixture_score, rand, randn
from fastlangevin.ops.arguments import check_labels, floating
from fastlangevin.runtime import choose
from fastlangevin.values import is_complex, is_number, real, shown

__all__ = ["MAX_COMPONENTS", "MAX_FEATURES", "GaussianMixture", "PerturbedMixture"]

MAX_COMPONENTS = 256
MAX_FEATURES = 64
# Standard deviations that fp32 may move a mean by; beyond, all scores of a level are computed in fp64.
LARGEST_MOVE = 1e-6

Numbers = Tensor | Sequence[Any]


def _numbers(name: str, value: Any) -> Tensor:
    """A tensor, array or nested sequence as fp64 on the CPU, every number finite."""
    if is_complex(value):
        raise TypeError(f"{name} must be real numbers, got {shown(value)}")
    if not isinstance(value, Sequence) and hasattr(value, "__float__") and not is_number(value):
        raise TypeError(f"{name} must be a tensor or nested sequence of numbers, got {shown(value)}")
    try:
        # Python's numbers are fp64 already, which as_tensor would round to the default dtype.
        kept = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64, device="cpu")
        # A copy, or a later change of the caller's memory would be one of this.
        numbers = kept.detach().to("cpu", torch.float64, copy=True)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{name} must be a tensor or nested sequence of numbers, got {shown(value)}") from error
    if not numbers.isfinite().all():
        raise ValueError(f"{name} must be finite, got {numbers[~numbers.isfinite()][0].item()}")
    return numbers


def _check_weights(value: Any) -> Tensor:
    weights = _numbers("weights", value)
    if weights.ndim != 1 or not 1 <= len(weights) <= MAX_COMPONENTS:
        raise ValueError(
            f"weights must have one number for each component, shape (K,) with K from 1 to {MAX_COMPONENTS}, got "
            f"{tuple(weights.shape)}"
        )
    if (weights <= 0).any():
        raise ValueError(
            f"weights must be above zero, got {weights.min().item()}; leave out components that have no weight"
        )
    total = weights.sum().item()
    if abs(total - 1) > 1e-5:
        raise ValueError(f"weights must sum to 1, got a sum of {total}; divide them by it")
    return weights / total


def _check_means(value: Any, components: int) -> Tensor:
    means = _numbers("means", value)
    if means.ndim != 2 or len(means) != components:
        raise ValueError(f"means must have shape ({components}, D), one row a component, got {tuple(means.shape)}")
    if not 1 <= means.shape[1] <= MAX_FEATURES:
        raise ValueError(f"means must have D from 1 to {MAX_FEATURES} columns, got {means.shape[1]}")
    return means


def _check_variances(value: Any, means: Tensor) -> Tensor:
    variances = _numbers("variances", value)
    components = means.shape[0]
    if variances.ndim == 0:
        variances = variances.expand(components).clone()
    if variances.shape not in ((components,), means.shape):
        raise ValueError(
            f"variances must be a number, or have shape ({components},) for isotropic components or "
            f"{tuple(means.shape)} for diagonal ones, got {tuple(variances.shape)}"
        )
    if (variances <= 0).any():
        raise ValueError(f"variances must be above zero, got {variances.min().item()}")
    return variances


class GaussianMixture:
    """A mixture of Gaussians, isotropic or diagonal, with its exact score at every noise level.

    Samplers take it in the place of a score function and bind it to their ladder: whole chains then run in one call,
    with the bits of the chain made update by update.

    Args:
        weights: ``(K,)``, above zero, with the sum 1; K up to 256.
        means: ``(K, D)`` in units of the data; D up to 64.
        variances: a number for all, ``(K,)`` for isotropic components, or ``(K, D)`` for diagonal ones, in units of
            the data squared, above zero.

    Attributes:
        weights, means, variances: fp64 tensors on the CPU.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range.
    """

    def __init__(self, weights: Numbers, means: Numbers, variances: Numbers | float) -> None:
        self.weights = _check_weights(weights)
        self.means = _check_means(means, len(self.weights))
        self.variances = _check_variances(variances, self.means)

    def __repr__(self) -> str:
        kind = "diagonal" if self.diagonal else "isotropic"
        return f"{type(self).__name__}({len(self.weights)} {kind} components of {self.features} elements)"

    @property
    def features(self) -> int:
        """D, the elements of a sample."""
        return self.means.shape[1]

    @property
    def diagonal(self) -> bool:
        """Returns whether every element of a component has a variance of its own."""
        return self.variances.ndim == 2

    def perturbed(self, sigmas: Sigmas, *, impl: str = "auto") -> PerturbedMixture:
        """The score function ``(x, labels) -> score`` on a ladder, of the mixture as it is now.

        Args:
            sigmas: noise levels in units of the data, largest first.
            impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.

        Raises:
            TypeError, ValueError: ``sigmas`` is not a ladder.
        """
        return PerturbedMixture(self, check_sigmas(sigmas), impl)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The score of the mixture perturbed by noise of standard deviation ``sigma``.

        Args:
            x: ``(B, ...)`` with D elements a sample, any float dtype.
            sigma: a number, or a tensor ``()`` or ``(B,)``, zero or above, read on the host.

        Returns:
            The shape of ``x``, fp32, or fp64 for an fp64 ``x``. Differentiable. Where no gradient is asked for, fp32
            has the same bits on every implementation and device.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind, shape or range.
        """
        self.flattened(x)
        levels = _check_sigma(sigma, x.shape[0])
        alone = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        each = torch.arange(x.shape[0], dtype=torch.int64, device=x.device) if len(levels) > 1 else alone
        return PerturbedMixture(self, levels)(x, each)

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The logarithm of the perturbed mixture's density, computed in fp64. Differentiable.

        Args:
            x: ``(B, ...)`` with D elements a sample, any float dtype.
            sigma: as for :meth:`score`.

        Returns:
            ``(B,)``, fp32, or fp64 for an fp64 ``x``.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind, shape or range.
        """
        flat = self.flattened(x).double()
        levels = torch.tensor(_check_sigma(sigma, x.shape[0]), dtype=torch.float64, device=x.device)
        logits, _, _ = self._components(flat, levels)
        constant = self.features / 2 * math.log(2 * math.pi)
        return (torch.logsumexp(logits, 1) - constant).to(_result_dtype(x))

    def sample(
        self,
        n: int,
        *,
        sigma: float = 0.0,
        draw: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        impl: str = "auto",
        **samples: Unpack[SampleOptions],
    ) -> Tensor:
        """Independent samples of the perturbed mixture, each a function of the seed and its id alone.

        Args:
            n: how many.
            sigma: standard deviation of the noise that is added.
            draw: number of the draw, 0 to 2^31 - 1: another for other samples of the same ids.
            dtype: of the samples, which are made in fp32.
            device: where they are made.
            impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
            samples: the seed and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

        Returns:
            ``(n, D)``.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind or out of range.
        """
        count = integer("n", n, 0, 2**40)
        place = integer("draw", draw, 0, 2**31 - 1)
        (level,) = _check_sigma(real("sigma", sigma, "a number, zero or above"), count)
        purpose = Purpose.MIXTURE
        # The two draws of a sample share no words: those of a uniform and of the normals at one draw would.
        uniform = rand((count, 1), draw=2 * place, purpose=purpose, device=device, impl=impl, **samples)[:, 0]
        z = randn((count, self.features), draw=2 * place + 1, purpose=purpose, device=device, impl=impl, **samples)
        edges = self.weights.cumsum(0)[:-1].float().to(z.device)
        which = torch.bucketize(uniform, edges, right=True)
        spread = (self.variances + level**2).sqrt().float().to(z.device)[which]
        spread = spread if self.diagonal else spread[:, None]
        return (self.means.float().to(z.device)[which] + spread * z).to(dtype)

    def flattened(self, x: Tensor) -> Tensor:
        """``x`` as ``(B, D)``, or an error that says which shape it should have."""
        x = floating("x", x)
        if x.ndim < 2 or math.prod(x.shape[1:]) != self.features:
            raise ValueError(
                f"x must be (B, ...) with the mixture's {self.features} elements a sample, got {tuple(x.shape)}"
            )
        return x.reshape(x.shape[0], self.features)

    def table(self, sigmas: list[float]) -> Tensor:
        """The rows of :mod:`fastlangevin.reference.mixture` at some levels, fp32 ``(L, K, 2 W + 1)`` on the CPU."""
        levels = torch.tensor(sigmas, dtype=torch.float64, device="cpu").view(-1, 1, *[1] * (self.variances.ndim - 1))
        total = self.variances + levels**2
        logs = total.log2().sum(2) if self.diagonal else self.features * total.log2()
        g = self.weights.log2() - logs / 2
        g = (g - g.amax(1, keepdim=True))[..., None]
        means = self.means.expand(len(sigmas), -1, -1)
        inverse = 1 / (total if self.diagonal else total[..., None])
        rows = torch.cat([g, means, inverse] if self.diagonal else [g, inverse / (-2 * math.log(2)), inverse, means], 2)
        rounded = rows.float()
        rest = torch.where(rounded.isfinite(), rows - rounded.double(), 0.0).float()
        return torch.cat([rounded, rest, self._limits(g, inverse).expand_as(g)], 2).contiguous()

    def _limits(self, g: Tensor, inverse: Tensor) -> Tensor:
        """The largest logit below which a score is computed in fp64, for each level, fp32 ``(L, 1, 1)``.

        The error of a logit of size q is below (6 + D) 2^-24 q. With 64 elements it is about 12 2^-24 q, since their
        roundings average out. At the lowest limit, q = 128, a component's weight then has a relative error of 6e-5.
        States of an ordinary mixture's law are far above the limit: their logits are about -0.72 D, beside the
        logarithm of a component's weight. A mean that fp32 moves by 1e-6 standard deviations an element changes a logit
        of 128 by 2e-5 with one element, and by 1e-4 with 64 in the worst case.
        """
        moved = (self.means - self.means.float().double()) ** 2 * inverse
        exact = moved.mean(2, keepdim=True).amax(1, keepdim=True) <= LARGEST_MOVE**2
        limits = (g.amin(1, keepdim=True) - 32 - self.features).clamp_(min=-128)
        return torch.where(exact, limits, math.inf).float()

    def closed_form(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The score in fp64, differentiable, for fp64 ``x`` ``(B, D)`` and ``sigma`` ``(B,)`` or ``(1,)``."""
        logits, d, total = self._components(x, sigma)
        return (torch.softmax(logits, 1)[..., None] * (d / total)).sum(1)

    def _components(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of weight times density, without its power of 2 pi; means less ``x``; perturbed variances."""
        variances = self.variances if self.diagonal else self.variances[:, None].expand_as(self.means)
        total = variances.to(x.device) + sigma.to(x.device).view(-1, 1, 1) ** 2
        d = self.means.to(x.device) - x[:, None]
        return self.weights.log().to(x.device) - (d * d / total + total.log()).sum(2) / 2, d, total


class PerturbedMixture:
    """The score function of a mixture on a ladder: called as ``score(x, labels)``.

    Its tables are made once, so that it keeps a copy of the mixture: later changes of that are not its own.

    Args:
        mixture: the mixture.
        sigmas: noise levels, one for each label.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
    """

    def __init__(self, mixture: GaussianMixture, sigmas: list[float], impl: str = "auto") -> None:
        self._mixture = copy(mixture)
        for name in ("weights", "means", "variances"):
            setattr(self._mixture, name, getattr(mixture, name).clone())
        self._sigmas = list(sigmas)
        self.impl = impl
        self._tables: dict[torch.device, Tensor] = {}

    @property
    def mixture(self) -> GaussianMixture:
        """The copy of the mixture."""
        return self._mixture

    @property
    def sigmas(self) -> list[float]:
        """The noise levels, a copy."""
        return list(self._sigmas)

    def table(self, device: torch.device) -> Tensor:
        """The rows of all levels, kept on a device."""
        if not lasting():
            return self._mixture.table(self._sigmas).to(device)
        if device not in self._tables:
            self._tables[device] = self._mixture.table(self._sigmas).to(device)
        return self._tables[device]

    def chain_kernel(self, x: Tensor, impl: str) -> ChainKernel | None:
        """See :class:`fastlangevin.chain_score.ChainScore`."""
        launchers = choose(impl, x.device)[1]
        if launchers.mixture_chain is None or x.numel() == 0 or observed():
            return None
        if launchers.mixture_chain_features < self._mixture.features:
            return None
        chain, flat = launchers.mixture_chain, self._mixture.flattened(x)
        table = self.table(x.device)

        def run(x: Tensor, segment: Segment) -> None:
            chain(x.view(flat.shape), table, segment, diagonal=self._mixture.diagonal)

        return run

    def at_one_level(self, x: Tensor) -> Tensor:
        """The score at ``x`` at the first level."""
        return self(x, torch.zeros(x.shape[0], dtype=torch.int64, device=x.device))

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        """The score at ``x``, ``(B, ...)``, for labels int64 ``(B,)``; see :meth:`GaussianMixture.score`."""
        flat = self._mixture.flattened(x)
        labels = check_labels(labels, x.shape[0], len(self._sigmas))
        if x.dtype == torch.float64 or (torch.is_grad_enabled() and x.requires_grad) or transforms():
            sigma = torch.tensor(self._sigmas, dtype=torch.float64, device=x.device)[labels]
            return self._mixture.closed_form(flat.double(), sigma).to(_result_dtype(x)).view(x.shape)
        table, narrow = self.table(x.device), flat.float().contiguous()
        score = mixture_score(narrow, table, labels.contiguous(), diagonal=self._mixture.diagonal, impl=self.impl)
        return score.view(x.shape)


def _result_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check_sigma(sigma: Any, batch: int) -> list[float]:
    """One noise level, or one for each sample, zero or above."""
    values = _numbers("sigma", sigma)
    if values.ndim and values.shape != (batch,):
        raise ValueError(f"sigma must be a number or have shape ({batch},), one for each sample, got {values.shape}")
    if (values < 0).any():
        raise ValueError(f"sigma must not be negative, got {values.min().item()}")
    levels: list[float] = values.reshape(-1).tolist()
    return levels
