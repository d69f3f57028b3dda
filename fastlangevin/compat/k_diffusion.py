"""k-diffusion: addressed noise for its samplers, and ``sample_euler_ancestral`` on the fused update.

A ladder is k-diffusion's, largest first, with 0 at its end or without it; a model is a denoiser, ``model(x, sigma,
**extra_args)`` with sigma ``(B,)`` in the dtype of ``x``, which returns the predicted data D. Its score is
(D - x)/sigma^2, so that an update c x + a score + b z is (1 - a/sigma^2) x + (a/sigma^2) D + b z.

Deviations, by name:

- *addresses*: noise is a function of (seed, sample, place of the step in the ladder), not of PyTorch's generator.
- *coefficients*: :func:`fastlangevin.rules.euler_ancestral`, in fp64 on the host; the ladder is read once.
- *one noise a step*: :func:`noise_sampler` refuses levels that are not neighbours, which ``sample_dpmpp_sde`` asks for
  between its steps: their noise belongs to one Brownian path, which this is not.
- *not finite*: a state that is NaN or infinite raises :class:`fastlangevin.NonFiniteError`, which names step and
  samples, at the end or within 32 steps; the published sampler returns it.
- *callbacks*: with one, no step is replayed from a CUDA graph, since it must be called at each.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from fastlangevin import schemes
from fastlangevin.calling import Guarded
from fastlangevin.compat.addresses import samples_of
from fastlangevin.kernels.address import Address
from fastlangevin.ladders import Sigmas, number
from fastlangevin.losses.arguments import check_returned
from fastlangevin.noise import Purpose, SampleOptions, resolve
from fastlangevin.ops.arguments import compute_dtype, floating
from fastlangevin.ops.random import random_at
from fastlangevin.rules.variance_exploding import without_zero
from fastlangevin.samplers import ChainOptions, RunOptions, SamplingResult
from fastlangevin.samplers.options import DEFAULTS, check_callable, check_names, complete, takes
from fastlangevin.samplers.sample import run
from fastlangevin.samplers.stepping import Noise

__all__ = ["noise_sampler", "sample_euler_ancestral"]

NoiseSampler = Callable[[Any, Any], Tensor]

# The callback is that of the published signature.
OPTIONS = {name: default for name, default in DEFAULTS.items() if name != "callback"}

# Of a level. Samplers that work in log sigma return to a level of the ladder by an exponential.
SAME = 1e-6


def _levels(sigmas: Sigmas) -> list[float]:
    """The ladder as Python floats, with its 0 if it has one."""
    values: Any = sigmas.tolist() if hasattr(sigmas, "tolist") else sigmas
    if not isinstance(values, str) and isinstance(values, Iterable):
        values = list(values)
    levels = without_zero(values, "sigmas")
    levels += [0.0] * (len(values) - len(levels))
    if len(levels) < 2:
        raise ValueError(f"sigmas must have two levels or more, the last of which may be 0, got {levels}")
    return levels


class _Noise:
    """Noise for the step from one level of a ladder to the next."""

    def __init__(self, x: Tensor, levels: list[float], samples: SampleOptions) -> None:
        floating("x", x)
        if not x.ndim:
            raise ValueError("x must be a batch (B, ...), got a tensor without dimensions; use x[None]")
        self.shape, self.dtype, self.device = x.shape, x.dtype, x.device
        self.levels = levels
        self.address = resolve(x, Purpose.LANGEVIN, **samples)

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        address = self.at(number("sigma", sigma), number("sigma_next", sigma_next))
        return random_at(torch.empty(self.shape, dtype=self.dtype, device=self.device), address)

    def at(self, sigma: float, sigma_next: float) -> Address:
        """The address of the noise of the step between two levels, whose number is the draw."""
        for index, (high, low) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            if math.isclose(sigma, high, rel_tol=SAME):
                if math.isclose(sigma_next, low, rel_tol=SAME):
                    return self.address._replace(draw=index)
                raise ValueError(
                    f"sigma_next must be the level after sigma = {sigma} in the ladder, {low}, got {sigma_next}; "
                    "samplers that need noise between levels, such as sample_dpmpp_sde, need a Brownian path"
                )
        raise ValueError(f"sigma must be a level of the ladder that noise_sampler was made for, got {sigma}")


def noise_sampler(x: Tensor, sigmas: Sigmas, **samples: Unpack[SampleOptions]) -> NoiseSampler:
    """Noise by address in k-diffusion's signature, ``noise_sampler(sigma, sigma_next)``, for its ancestral samplers.

    The draw number is the place of the step in the ladder, so a sample's noise depends on its own id and seed alone,
    and a run that is taken up at a later level goes on with the same noise. Fits samplers with one noise a step:
    ``sample_euler_ancestral``, ``sample_dpm_2_ancestral``, ``sample_dpmpp_2s_ancestral``, ``sample_dpmpp_2m_sde`` and
    ``sample_dpmpp_3m_sde``. It reads the levels on the host, as these samplers do themselves.

    Args:
        x: a state ``(B, ...)``; the noise has its shape, dtype and device.
        sigmas: the ladder of the run, in units of the data, largest first; a 0 at its end is allowed.
        samples: the seed and the samples' ids, :class:`fastlangevin.noise.SampleOptions`.

    Returns:
        A callable of two levels, numbers or 0-dim tensors, that returns noise ``(B, ...)``; it raises ValueError where
        they are not neighbours in the ladder.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    return _Noise(x, _levels(sigmas), samples)


@takes(RunOptions, OPTIONS)
def sample_euler_ancestral(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Sigmas,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    **options: Any,
) -> Tensor | SamplingResult:
    """Euler steps down to sigma_down, then noise of sigma_up: :func:`fastlangevin.schemes.euler_ancestral`.

    Args:
        model: the denoiser, called as ``model(x, sigma, **extra_args)`` with sigma ``(B,)``.
        x: initial state ``(B, ...)``, of standard deviation ``sigmas[0]`` for noise alone; not changed.
        sigmas: the ladder, in units of the data, largest first. It ends at its last level, or at the data where that
            is 0.
        extra_args: further arguments of the model.
        callback: called before every update with a dictionary of ``x``, ``i``, ``sigma``, ``sigma_hat``, ``denoised``.
        disable: no progress bar; None for none where the output is no terminal. ``progress=`` decides if it is given.
        eta: share of the ancestral noise, zero or above; 0 is deterministic.
        s_noise: factor of the noise, zero or above.
        noise_sampler: called as ``noise_sampler(sigma, sigma_next)``. One that :func:`noise_sampler` made for this
            ladder is drawn inside the update; by default one is made of the seed and ids among the options.
        options: those of :class:`fastlangevin.samplers.RunOptions`, such as ``seed``, ``resume`` and ``full_output``.
            ``telemetry`` is refused, since the model returns no score.

    Returns:
        The samples, with shape and dtype of ``x``; or a :class:`fastlangevin.SamplingResult` with ``full_output``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite. It names the place of the step in ``sigmas``, as update and as level.
    """
    check_callable("model", model, "model(x, sigma)")
    floating("x", x)
    check_names(RunOptions, options)
    levels = _levels(sigmas)
    scheme = schemes.euler_ancestral(levels, eta=eta, s_noise=s_noise).predicting("denoised", "sigma")
    if levels[-1]:
        scheme = scheme._replace(total=len(levels) - 1, record={**scheme.record, "steps": len(levels) - 1})
    drawn = noise_sampler if isinstance(noise_sampler, _Noise) else None
    if noise_sampler is not None:
        if any(options.get(name) is not None for name in ("seed", "generator", "sample_ids")):
            raise ValueError(
                "noise_sampler= is the noise itself: give it, or seed=, generator= or sample_ids=, not both"
            )
        # The seed of another noise sampler is its own affair, and none is drawn for it.
        options |= {"seed": 0} if drawn is None else samples_of(drawn.address)
    table = torch.tensor(levels, dtype=compute_dtype(x), device=x.device)
    shows = sys.stderr.isatty() if disable is None else not disable
    given: Any = {"progress": shows, **options, "init": x}
    if callback is not None:
        given["cuda_graph"] = False
    chosen = complete(given, ChainOptions)
    begun = 0 if chosen["resume"] is None else chosen["resume"].step
    net = _Model(model, extra_args or {}, table, callback, begun)
    return run(net, scheme, chosen, _noise_of_steps(noise_sampler, x, levels, table))


class _Model:
    """The denoiser with its further arguments, and the callback that is shown what it returned."""

    def __init__(
        self,
        model: Callable[..., Tensor],
        extra_args: dict[str, Any],
        table: Tensor,
        callback: Callable[[dict[str, Any]], Any] | None,
        begun: int,
    ) -> None:
        self.model = Guarded("model", functools.partial(model, **extra_args), like_state=False)
        self.table = table
        self.callback = callback
        self.calls = begun

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        denoised = check_returned("model", self.model(x, sigma), x)
        if self.callback is not None:
            level = self.table[self.calls]
            # The chain goes on in the memory of its state, which a callback may keep.
            shown = {"x": x.clone(), "i": self.calls, "sigma": level, "sigma_hat": level, "denoised": denoised}
            self.callback(shown)
        self.calls += 1
        return denoised


def _noise_of_steps(given: NoiseSampler | None, x: Tensor, levels: list[float], table: Tensor) -> Noise | None:
    """The noise of each step by a noise sampler; None if it is that of the chain's own addresses."""
    if given is None or (isinstance(given, _Noise) and given.levels == levels):
        return None
    # One of ours may have been made for another batch.
    made = _Noise(x, given.levels, samples_of(given.address)) if isinstance(given, _Noise) else given
    return Noise(lambda step: made(table[step], table[step + 1]))
