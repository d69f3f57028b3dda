"""The predictor-corrector sampler: at every time the corrector, then the predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin import rules
from fastlangevin.calling import Guarded
from fastlangevin.compat.score_sde.correctors import (
    AnnealedLangevinDynamics,
    Corrector,
    LangevinCorrector,
    NoneCorrector,
)
from fastlangevin.compat.score_sde.draws import AddressedNoise
from fastlangevin.compat.score_sde.predictors import (
    AncestralSamplingPredictor,
    EulerMaruyamaPredictor,
    NonePredictor,
    Predictor,
    ReverseDiffusionPredictor,
    ScoreAtTime,
)
from fastlangevin.compat.score_sde.registry import get_corrector, get_predictor
from fastlangevin.compat.score_sde.scores import Network, check_sde, get_score_fn
from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.compat.watched import Watched
from fastlangevin.ladders import evenly, positive
from fastlangevin.noise import Generators, Seed
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, compute_dtype, sizes
from fastlangevin.rules import SignalNorm

__all__ = ["get_pc_sampler"]

SampleIds = Tensor | Sequence[int]
Rescale = Callable[[Tensor], Tensor]
# (state, its mean, times) to both with what is known of the data put in.
Impose = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

# Those that are known to need no mean of their own but the last; a class of others may.
OWN_PREDICTORS = (EulerMaruyamaPredictor, ReverseDiffusionPredictor, AncestralSamplingPredictor)
OWN_CORRECTORS = (LangevinCorrector, AnnealedLangevinDynamics)
# Those whose updates record what is not finite, or that make none.
RECORDED = {*OWN_PREDICTORS, *OWN_CORRECTORS, NonePredictor, NoneCorrector}


@dataclass(frozen=True)
class Sampler:
    """What ``get_pc_sampler`` and its like are given, checked."""

    sde: SDE
    predictor: type[Any]
    corrector: type[Any]
    inverse_scaler: Rescale
    snr: float
    n_steps: int
    probability_flow: bool
    continuous: bool
    denoise: bool
    eps: float
    norm: SignalNorm
    strict: bool
    strict_ladder: bool
    progress: bool

    def __post_init__(self) -> None:
        check_sde(self.sde)
        if not callable(self.inverse_scaler):
            raise TypeError(f"inverse_scaler must be callable, got {type(self.inverse_scaler).__name__}")
        if positive("eps", self.eps) >= self.sde.T:
            raise ValueError(f"eps, the last time, must be below T = {self.sde.T}, got {self.eps}")
        if self.norm not in get_args(SignalNorm):
            raise ValueError(f"norm must be one of {', '.join(get_args(SignalNorm))}, got {self.norm!r}")
        self.pair(lambda x, t: x, AddressedNoise())  # refuses what does not fit before a network is called

    def pair(self, score: ScoreAtTime, noise: AddressedNoise) -> tuple[Any, Any]:
        """Predictor and corrector of one chain, on the same addresses where they are classes of this module."""
        predictor = self.predictor(self.sde, score, self.probability_flow)
        corrector = self.corrector(self.sde, score, self.snr, self.n_steps)
        for each in (predictor, corrector):
            if isinstance(each, Predictor | Corrector):
                each.noise = noise
        if isinstance(corrector, LangevinCorrector):
            corrector.norm = self.norm
        return predictor, corrector

    def network(self, model: Network) -> ScoreAtTime:
        """The network as a score at a time, refused before anything is drawn if it does not fit."""
        return get_score_fn(self.sde, model, continuous=self.continuous, strict_ladder=self.strict_ladder)

    def run(
        self, network: ScoreAtTime, x: Tensor, noise: AddressedNoise, impose: Impose | None = None
    ) -> tuple[Tensor, int]:
        """The chain from the prior's state ``x``: samples, and the calls of the network."""
        calls = 0
        guarded = Guarded("model", network)

        def score(x: Tensor, t: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return guarded(x, t)

        predictor, corrector = self.pair(score, noise)
        mean = x
        times = evenly(self.sde.T, self.eps, self.sde.N)
        last = len(times) - 1
        own = type(predictor) in OWN_PREDICTORS
        if type(corrector) in OWN_CORRECTORS:
            corrector.means = False
        watch = Watched(x, len(times), noise.resolved(x), "compat.score_sde")
        recorded = {type(predictor), type(corrector)} <= RECORDED
        with torch.no_grad():
            for index, time in enumerate(tqdm(times, disable=not self.progress, desc="sampling", unit="step")):
                if own:
                    predictor.means = index == last
                noise.fault = watch.row(index)
                t = torch.full((len(x),), time, dtype=compute_dtype(x), device=x.device)
                for each in (corrector, predictor):
                    x, mean = each.update_fn(x, t)
                    if impose is not None:
                        x, mean = impose(x, mean, t)
                if not recorded:
                    watch.look(x, index)
                if index < last:
                    watch.after(x, index)
            noise.fault = None
            if self.denoise and not self.strict and isinstance(predictor, NonePredictor):
                last += 1
                mean = self._tweedie(x, score, t)
                recorded = False
                if impose is not None:
                    _, mean = impose(mean, mean, t)
            result = mean if self.denoise else x
            if not recorded or impose is not None:
                watch.look(result, last)
            watch.end(result, last)
            return self.inverse_scaler(result), calls

    def _tweedie(self, x: Tensor, score: ScoreAtTime, t: Tensor) -> Tensor:
        """The mean of the data given the state: (x + std^2 score)/m, where the perturbed data are m data + std z."""
        end = torch.tensor(self.eps, dtype=torch.float64, device="cpu")
        factor, std = (float(each) for each in self.sde.scales(end))
        c, a, _ = rules.denoise(std)
        return AddressedNoise().update(x, score(x, t), c / factor, a / factor, None, mean=False)[0]


def sampler(
    sde: SDE,
    predictor: type[Any] | str | None,
    corrector: type[Any] | str | None,
    inverse_scaler: Rescale,
    snr: float,
    n_steps: int,
    **options: Any,
) -> Sampler:
    """A :class:`Sampler` from classes, names or None, which stands for ``none``."""

    def named(given: type[Any] | str | None, get: Callable[[str], type[Any]], none: type[Any]) -> type[Any]:
        if given is None:
            return none
        return get(given) if isinstance(given, str) else given

    return Sampler(
        sde,
        named(predictor, get_predictor, NonePredictor),
        named(corrector, get_corrector, NoneCorrector),
        inverse_scaler,
        snr,
        n_steps,
        **options,
    )


def _device(device: torch.device | str) -> torch.device:
    where = torch.device(device)
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device is {str(device)!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices; give device='cpu', "
            "or one that is there"
        )
    return where


def get_pc_sampler(
    sde: SDE,
    shape: Sequence[int],
    predictor: type[Any] | str | None,
    corrector: type[Any] | str | None,
    inverse_scaler: Rescale,
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = False,
    denoise: bool = True,
    eps: float = 1e-3,
    device: torch.device | str = "cuda",
    *,
    seed: Seed | None = None,
    generator: Generators | None = None,
    sample_ids: SampleIds | None = None,
    sample_offset: int = 0,
    norm: SignalNorm = "batch",
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
    strict: bool = False,
    strict_ladder: bool = True,
) -> Callable[[Network], tuple[Tensor, int]]:
    """The predictor-corrector sampler of Song et al. (2021), Algorithms 2 and 3, in the published order.

    At each of the N times of linspace(T, eps, N) the corrector, then the predictor. With ``norm="sample"`` or
    ``"sqrt_d"``, or another corrector than ``langevin``, a sample depends on no other in its batch, as far as the
    network treats them separately.

    Args:
        sde: the diffusion; its N is the number of steps.
        shape: ``(B, ...)`` of the samples.
        predictor: a class, a registered name, or None for ``none``.
        corrector: likewise.
        inverse_scaler: called on the samples at the end, such as ``lambda x: x``.
        snr: the corrector's signal-to-noise ratio, above zero.
        n_steps: the corrector's steps at each time.
        probability_flow: the predictor is deterministic.
        continuous: the network was trained on continuous times, see :func:`get_score_fn`.
        denoise: return the mean of the last update before its noise; with the predictor ``none``, which has no mean,
            the step to the posterior mean (Tweedie's formula) at time ``eps``, for one more call of the network.
        eps: the last time, between 0 and T.
        device: where samples are made.
        seed: 0 to 2^64 - 1, or an int64 tensor ``(B,)`` of one for each sample, by their bits.
        generator: a ``torch.Generator`` that each call draws a seed from, or one for each sample. With neither, the
            seed of each call comes from PyTorch's default CPU generator.
        sample_ids: ``B`` global ids, so that any subset of a run can be made again alone.
        sample_offset: id of the first sample where ``sample_ids`` is not given.
        norm: how ``langevin`` takes the ratio of norms; the published ``"batch"``, ``"sample"`` or ``"sqrt_d"``, see
            :data:`fastlangevin.rules.SignalNorm`.
        dtype: of the samples.
        progress: show a progress bar.
        strict: ``denoise`` does nothing for the predictor ``none``, as published.
        strict_ladder: see :func:`get_score_fn`.

    Returns:
        ``pc_sampler(model) -> (samples, nfe)``, nfe being the number of calls of ``model(x, labels)``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the predictor does not fit ``sde``.
        NonFiniteError: by ``pc_sampler``, a state is not finite.
    """
    made = sampler(
        sde,
        predictor,
        corrector,
        inverse_scaler,
        snr,
        n_steps,
        probability_flow=probability_flow,
        continuous=continuous,
        denoise=denoise,
        eps=eps,
        norm=norm,
        strict=strict,
        strict_ladder=strict_ladder,
        progress=progress,
    )
    size = sizes(shape)
    if not size or 0 in size:
        raise ValueError(f"shape must be that of a batch (B, ...) of one sample or more, got {size}")
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
    where = _device(device)

    def pc_sampler(model: Network) -> tuple[Tensor, int]:
        network = made.network(model)
        noise = AddressedNoise(seed=seed, generator=generator, sample_ids=sample_ids, sample_offset=sample_offset)
        x = noise.prior(sde, size, dtype, where)
        return made.run(network, x, noise)

    return pc_sampler
