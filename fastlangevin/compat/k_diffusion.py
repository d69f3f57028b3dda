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
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor
from tqdm.auto import trange

from fastlangevin import rules
from fastlangevin.calling import Guarded
from fastlangevin.compat.addresses import samples_of
from fastlangevin.compat.watched import Watched
from fastlangevin.kernels.address import Address, Term, Update
from fastlangevin.ladders import Sigmas, number
from fastlangevin.losses.arguments import check_returned
from fastlangevin.noise import Generators, Purpose, SampleOptions, Seed, resolve
from fastlangevin.ops import move
from fastlangevin.ops.arguments import compute_dtype, floating
from fastlangevin.ops.random import random_at
from fastlangevin.ops.sample_norms import NO_ADDRESS
from fastlangevin.rules.variance_exploding import without_zero

__all__ = ["noise_sampler", "sample_euler_ancestral"]

NoiseSampler = Callable[[Any, Any], Tensor]

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


@torch.no_grad()
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
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: Tensor | Sequence[int] | None = None,
    sample_offset: int = 0,
) -> Tensor:
    """Euler steps down to sigma_down, then noise of sigma_up: :func:`fastlangevin.rules.euler_ancestral`.

    Args:
        model: the denoiser, called as ``model(x, sigma, **extra_args)`` with sigma ``(B,)``.
        x: initial state ``(B, ...)``, of standard deviation ``sigmas[0]`` for noise alone; not changed.
        sigmas: the ladder, in units of the data, largest first. It ends at its last level, or at the data where that
            is 0.
        extra_args: further arguments of the model.
        callback: called before every update with a dictionary of ``x``, ``i``, ``sigma``, ``sigma_hat``, ``denoised``.
        disable: no progress bar; None for none where the output is no terminal.
        eta: share of the ancestral noise, zero or above; 0 is deterministic.
        s_noise: factor of the noise, zero or above.
        noise_sampler: called as ``noise_sampler(sigma, sigma_next)``. One that :func:`noise_sampler` made is drawn
            inside the update; by default one is made of the arguments below.
        seed, generator, sample_ids, sample_offset: as for :class:`fastlangevin.noise.SampleOptions`.

    Returns:
        The samples, with shape and dtype of ``x``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite. It names the place of the step in ``sigmas``, as update and as level.
    """
    if not callable(model):
        raise TypeError(f"model must be callable as model(x, sigma), got {type(model).__name__}")
    floating("x", x)
    levels = _levels(sigmas)
    listed = rules.euler_ancestral(levels, eta, s_noise)
    if noise_sampler is not None and (seed is not None or generator is not None or sample_ids is not None):
        raise ValueError("noise_sampler= is the noise itself: give it, or seed=, generator= or sample_ids=, not both")
    noise: _Noise | None = None
    if noise_sampler is None:
        samples: SampleOptions = {"seed": seed, "generator": generator, "sample_ids": sample_ids}
        noise = _Noise(x, levels, {**samples, "sample_offset": sample_offset})
    elif isinstance(noise_sampler, _Noise):  # made for another batch, perhaps
        noise = _Noise(x, noise_sampler.levels, samples_of(noise_sampler.address))
    denoise = Guarded("model", functools.partial(model, **(extra_args or {})), like_state=False)
    handed = torch.tensor(levels, dtype=compute_dtype(x), device=x.device)
    # A callback may keep the state it is shown.
    own = x.clone() if callback is None else x
    last = len(levels) - 2
    address = NO_ADDRESS if noise is None else noise.address
    watch = Watched(x, last + 1, address, "compat.k_diffusion.sample_euler_ancestral")
    for index in trange(last + 1, disable=disable):
        high, low = levels[index : index + 2]
        sigma = handed[index].to(x.dtype).expand(x.shape[0])
        denoised = check_returned("model", denoise(own, sigma), own)
        if callback is not None:
            callback({"x": own, "i": index, "sigma": handed[index], "sigma_hat": handed[index], "denoised": denoised})
        _, a, b = listed[index]
        k = a / high**2
        z = None
        if b is not None and noise is not None:
            address = noise.at(high, low)
        elif b is not None and noise_sampler is not None:
            z = noise_sampler(handed[index], handed[index + 1])
        terms = Term(1 - k, own), Term(k, denoised)
        update = Update(terms, b, address, address.draw, noise=z, fault=watch.row(index))
        own = move(update, out=own if callback is None else None)
        if index < last:
            watch.after(own, index)
    watch.end(own, last)
    return own
