"""The predictor-corrector sampler: at every time the corrector, then the predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, Unpack, get_args

import torch
from torch import Tensor

from fastlangevin.calling import Guarded
from fastlangevin.compat.addresses import samples_of
from fastlangevin.compat.score_sde.chains import Chain, OthersSteps, RuleSteps, denoising, has_rules
from fastlangevin.compat.score_sde.correctors import LangevinCorrector, NoneCorrector
from fastlangevin.compat.score_sde.known import Known, Put
from fastlangevin.compat.score_sde.predictors import NonePredictor, ScoreAtTime
from fastlangevin.compat.score_sde.registry import get_corrector, get_predictor
from fastlangevin.compat.score_sde.scores import Network, check_sde, get_score_fn
from fastlangevin.compat.score_sde.sde import SDE
from fastlangevin.ladders import evenly, positive
from fastlangevin.noise import STREAM_VERSION
from fastlangevin.ops.arguments import FLOAT_NAMES, FLOATS, compute_dtype, sizes
from fastlangevin.rules import SignalNorm
from fastlangevin.samplers import SamplingResult
from fastlangevin.samplers.options import DEFAULTS, ChainOptions, RunOptions, check_names, complete, takes
from fastlangevin.samplers.sample import run
from fastlangevin.samplers.start import initial_address
from fastlangevin.schemes import Scheme
from fastlangevin.schemes.scheme import check_draws

__all__ = ["OWN_DEFAULTS", "PCOptions", "Sampler", "get_pc_sampler"]

# Of a sampler: what decides no sample, or has names of its own in the record.
NOT_RECORDED = {"sde", "inverse_scaler", "own", "chosen"}

Rescale = Callable[[Tensor], Tensor]


class PCOptions(RunOptions, total=False):
    """Keyword arguments of the samplers of score_sde, beside those of :class:`fastlangevin.samplers.RunOptions`.

    Attributes:
        norm: how ``langevin`` takes the ratio of norms; the published ``"batch"``, ``"sample"`` or ``"sqrt_d"``, see
            :data:`fastlangevin.rules.SignalNorm`.
        strict: as published: ``denoise`` does nothing for the predictor ``none``; where a part of the data is known,
            the mean that it returns is rebuilt from the noisy state, so that what is sought is not denoised, and the
            known part starts without noise.
        strict_ladder: see :func:`get_score_fn`.
    """

    norm: SignalNorm
    strict: bool
    strict_ladder: bool


OWN_DEFAULTS: PCOptions = {"norm": "batch", "strict": False, "strict_ladder": True}


@dataclass
class Sampler:
    """The checked arguments of ``get_pc_sampler``, ``get_pc_inpainter`` and ``get_pc_colorizer``.

    Classes are given as themselves, by their names, or as None, which stands for ``none``.

    Attributes:
        own: the options of the samplers of score_sde.
        chosen: those of every sampler.
    """

    sde: SDE
    predictor: type[Any] | str | None
    corrector: type[Any] | str | None
    inverse_scaler: Rescale
    snr: float
    n_steps: int
    probability_flow: bool
    continuous: bool
    denoise: bool
    eps: float
    options: InitVar[PCOptions]
    own: PCOptions = field(init=False)
    chosen: ChainOptions = field(init=False)

    def __post_init__(self, options: PCOptions) -> None:
        check_sde(self.sde)
        check_names(PCOptions, options)
        given: Any = {name: each for name, each in options.items() if name not in OWN_DEFAULTS}
        own: Any = {name: options.get(name, each) for name, each in OWN_DEFAULTS.items()}
        self.own, self.chosen = own, complete(given, RunOptions)
        if not callable(self.inverse_scaler):
            raise TypeError(f"inverse_scaler must be callable, got {type(self.inverse_scaler).__name__}")
        if positive("eps", self.eps) >= self.sde.T:
            raise ValueError(f"eps, the last time, must be below T = {self.sde.T}, got {self.eps}")
        if self.own["norm"] not in get_args(SignalNorm):
            raise ValueError(f"norm must be one of {', '.join(get_args(SignalNorm))}, got {self.own['norm']!r}")
        others = not has_rules(*self.pair(lambda x, t: x))  # refuses what does not fit before a network is called
        if others and self.chosen["resume"] is not None:
            raise ValueError("resume= needs a predictor and a corrector of this package: one of others may keep more")

    def pair(self, score: ScoreAtTime) -> tuple[Any, Any]:
        """Predictor and corrector of one chain."""
        named = get_predictor(self.predictor) if isinstance(self.predictor, str) else self.predictor
        predictor = (named or NonePredictor)(self.sde, score, self.probability_flow)
        named = get_corrector(self.corrector) if isinstance(self.corrector, str) else self.corrector
        corrector = (named or NoneCorrector)(self.sde, score, self.snr, self.n_steps)
        if isinstance(corrector, LangevinCorrector):
            corrector.norm = self.own["norm"]
        return predictor, corrector

    def run(self, model: Network, like: Tensor, known: tuple[Tensor, Put] | None = None) -> SamplingResult:
        """The chain.

        Args:
            model: the network, refused before anything is drawn if it does not fit.
            like: of the shape, dtype and device of the samples.
            known: the data of which a part is known, and what puts them in.
        """
        continuous, strict_ladder = self.continuous, self.own["strict_ladder"]
        network = get_score_fn(self.sde, model, continuous=continuous, strict_ladder=strict_ladder)
        score = _Timed(network, self.times(like))
        chain = self.chain(score.at_times, score.times, known)
        options: ChainOptions = {**self.chosen, "shape": like.shape, "dtype": like.dtype, "device": like.device}
        options |= {"init": "normal", "full_output": True}
        if chain.known is not None and options["resume"] is None:
            options |= self._begun(chain.known, like, options, chain)
        result = run(score, self.scheme(chain), options)
        assert isinstance(result, SamplingResult)
        samples = self.inverse_scaler(result.samples)
        return replace(result, samples=samples, evaluations=result.evaluations + score.calls)

    def times(self, like: Tensor) -> Tensor:
        """The N times of a chain ``(N,)``, in the dtype and on the device that states like this one are computed in."""
        times = torch.tensor(evenly(self.sde.T, self.eps, self.sde.N), dtype=torch.float64, device="cpu")
        return times.to(like.device, compute_dtype(like))

    def chain(self, score: ScoreAtTime, times: Tensor, known: tuple[Tensor, Put] | None = None) -> Chain:
        """Collects the parts of the steps. The score is for predictors and correctors of others."""
        part = None if known is None else Known(self.sde, *known)
        return Chain(self.sde, *self.pair(score), times, part, self.denoise, self.own["strict"])

    def output(self, result: SamplingResult) -> Tensor | SamplingResult:
        """Returns the samples, or the whole result with ``full_output``."""
        return result if self.chosen["full_output"] else result.samples

    def scheme(self, chain: Chain) -> Scheme:
        """The table of a chain."""
        steps = (RuleSteps if has_rules(chain.predictor, chain.corrector) else OthersSteps)(chain)
        described = {name: each for name, each in vars(self).items() if name not in NOT_RECORDED}
        record = {
            "sampler": "compat.score_sde",
            "stream": STREAM_VERSION,
            "sde": self.sde.record,
            **described,
            "predictor": type(chain.predictor).__name__,
            "corrector": type(chain.corrector).__name__,
            "norm": self.own["norm"],
            "strict": chain.strict,
        }
        last = denoising(chain, self.eps) if chain.tweedie else None
        check_draws(steps.total, steps.draws_per_step)
        first_draw = int(chain.known is not None and not chain.strict)
        return Scheme(
            "score_sde",
            steps,
            steps.total,
            [],
            record,
            spread=self.sde.scale_of_prior,
            denoise=last,
            draws_per_step=steps.draws_per_step,
            first_draw=first_draw,
        )

    def _begun(self, known: Known, like: Tensor, options: ChainOptions, chain: Chain) -> Any:
        """The options of a chain that starts with what is known put in: at time T too, without noise if ``strict``."""
        address = initial_address(like, options)
        samples = samples_of(address)
        x = self.sde.prior_sampling(like.shape, dtype=like.dtype, device=like.device, **samples)
        x = known.put(x, known.data) if chain.strict else known.perturbed(x, address, time=chain.times[:1])
        return {"init": x, "generator": None, **samples}


class _Timed:
    """A score of times, called with the places of the times of a chain.

    Attributes:
        times: of the chain, ``(N,)``.
        calls: those by the times themselves.
    """

    def __init__(self, score: ScoreAtTime, times: Tensor) -> None:
        self.score = Guarded("model", score)
        self.times = times
        self.calls = 0

    def __call__(self, x: Tensor, places: Tensor) -> Tensor:
        return self.score(x, self.times[places])

    def at_times(self, x: Tensor, t: Tensor) -> Tensor:
        """The score that a predictor or a corrector of others calls."""
        self.calls += 1
        return self.score(x, t)


def device_of(given: torch.device | str) -> torch.device:
    """A device that is there."""
    where = torch.device(given)
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device is {str(given)!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices; give device='cpu', "
            "or one that is there"
        )
    return where


@takes(PCOptions, {**OWN_DEFAULTS, **DEFAULTS})
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
    dtype: torch.dtype = torch.float32,
    **options: Unpack[PCOptions],
) -> Callable[[Network], tuple[Tensor, int] | SamplingResult]:
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
        dtype: of the samples.
        options: those of :class:`fastlangevin.compat.score_sde.PCOptions`, such as ``norm``, ``seed`` and ``resume``.
            An update is the step of a time, its corrector and its predictor. With neither ``seed`` nor ``generator``
            each call takes a seed from PyTorch's default CPU generator.

    Returns:
        ``pc_sampler(model) -> (samples, nfe)``, nfe being the number of calls of ``model(x, labels)``; or with
        ``full_output`` a :class:`fastlangevin.SamplingResult`, whose ``samples`` alone are rescaled.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or the predictor does not fit ``sde``.
        NonFiniteError: by ``pc_sampler``, a state is not finite.
    """
    made = Sampler(
        sde,
        predictor,
        corrector,
        inverse_scaler,
        snr,
        n_steps,
        probability_flow,
        continuous,
        denoise,
        eps,
        options,
    )
    size = sizes(shape)
    if not size or 0 in size:
        raise ValueError(f"shape must be that of a batch (B, ...) of one sample or more, got {size}")
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be {FLOAT_NAMES}, got {dtype}")
    where = device_of(device)

    def pc_sampler(model: Network) -> tuple[Tensor, int] | SamplingResult:
        result = made.run(model, torch.empty(size, dtype=dtype, device=where))
        return result if made.chosen["full_output"] else (result.samples, result.evaluations)

    return pc_sampler
