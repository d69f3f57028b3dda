"""What all samplers take: where a chain begins, its random address, what is watched, what acts on every update."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor

from fastlangevin.noise import Generators, Seed, integer
from fastlangevin.ops.mlp_chain import Matmul, check_matmul
from fastlangevin.samplers.chain import Callback, ChainState
from fastlangevin.samplers.inpainting import Inpainting
from fastlangevin.samplers.watching import Kept, NonFinite, check_watching
from fastlangevin.scores import ScoreFunction
from fastlangevin.values import real, shown

__all__ = ["Chain", "ChainOptions", "CudaGraph", "Init", "Options", "Order", "SampleIds", "list_options"]

# What list_options puts the options of ChainOptions in the place of, in the docstring of a sampler.
OPTIONS_ENTRY = "    options: those of :class:`fastlangevin.samplers.ChainOptions`."

Init = Tensor | Literal["uniform", "normal"]
Order = Literal["score", "noise"]
Chain = Literal["auto", "loop", "kernel"]
CudaGraph = bool | Literal["auto"]
SampleIds = Tensor | Sequence[int]


class ChainOptions(TypedDict, total=False):
    """Keyword arguments of every sampler on a ladder.

    Attributes:
        shape: ``(B, ...)`` of the samples, where ``init`` is not a tensor.
        init: ``"uniform"``, U(0, 1) as in the paper; ``"normal"``, N(0, sigma_1^2); or the initial states, which are
            not changed.
        seed: 0 to 2^64 - 1, or int64 tensor ``(B,)`` of one for each sample, by their bits.
        generator: a ``torch.Generator`` a seed is drawn from, or one for each sample. With neither, the seed comes from
            PyTorch's default CPU generator.
        sample_ids: ``B`` global ids, so that any subset of a run can be made again alone.
        sample_offset: id of the first sample where ``sample_ids`` is not given.
        dtype: of the samples, where ``init`` is not a tensor.
        device: likewise.
        callback: called with a :class:`StepInfo` after every update; returning True stops the chain.
        progress: show a progress bar.
        trajectory: keep the states after 0, k, 2k, ... updates, on the device; 0 keeps none. Needs ``full_output``.
        resume: a :class:`ChainState` to go on from; the chain ends with the bits it would have had. What decides the
            samples must be given again and is compared; but of the score nothing is, of a ``drift`` only that there is
            one, and of an ``inpainting`` its kind of noise, not its mask and data.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        drift: ``drift(x, labels)``, added to the score in every update, such as the gradient of a measurement's log
            likelihood in an inverse problem. The denoise step leaves it out.
        clamp: ``(low, high)``, a pair of numbers, to which the state is clamped after every update and, with
            ``denoise=True``, after the denoise step.
        clamp_denoised: False leaves the result of the denoise step as it is.
        inpainting: an :class:`Inpainting`: a region that is known.
        order: ``"score"``, noise and score at one point; or ``"noise"``, the noise first and the score where it led to.
        cuda_graph: on a CUDA device, capture an update as a CUDA graph and replay it, with the same bits: ``"auto"``,
            where 100 updates or more are left and it can be done; True, which raises where it cannot; or False. The
            score is called six times more for each graph, and Python that it runs is not run again at a replay: see
            :mod:`fastlangevin.samplers.replaying`.
        non_finite: what happens where an update's result is NaN or infinite, which its kernel finds out. ``"raise"``, a
            :class:`NonFiniteError` that names the first such update, its level and samples, after at most 32 more
            updates; ``"freeze"``, those samples stay as they are and the others go on; ``"report"``, all go on. The
            last two are told of in the result's ``faults``. None does not look. No sample that is finite has other
            bits for it.
        telemetry: keep the norm of the score and the signal-to-noise ratio ||a s|| / ||b z|| of every k-th update; of
            the last of each level with ``"level"``, which costs one more update per level; 0 keeps none. Needs
            ``full_output``.
        chain: ``"auto"`` makes many updates in one call of a kernel where the score can be computed inside it: of a
            :class:`fastlangevin.GaussianMixture`, with the bits of the loop, or of a :class:`fastlangevin.models.MLP`
            in evaluation mode, which then differs by roundings. ``"loop"`` calls the score for every update;
            ``"kernel"`` raises where there is no kernel, with the reason.
        matmul: of a network's kernel: ``"fp32"``; or ``"tf32"`` or ``"bf16"``, a GPU's matrix units, whose factors have
            11 or 8 bits. These raise where there is no such kernel.
        strict_ladder: refuse ``sigmas`` that are another ladder than ``score`` was built with, where that can be told:
            from its ``sigmas``, as the networks of :mod:`fastlangevin.models` and results of
            :func:`fastlangevin.adapt` have them, through their usual wrappers too. Rounding to fp32 makes no other
            ladder. False insists on ``sigmas``.
    """

    shape: Sequence[int] | None
    init: Init
    seed: Seed | None
    generator: Generators | None
    sample_ids: SampleIds | None
    sample_offset: int
    dtype: torch.dtype
    device: torch.device | str | None
    callback: Callback | None
    progress: bool
    trajectory: int
    resume: ChainState | None
    impl: str
    drift: ScoreFunction | None
    clamp: tuple[float, float] | None
    clamp_denoised: bool
    inpainting: Inpainting | None
    order: Order
    cuda_graph: CudaGraph
    non_finite: NonFinite | None
    telemetry: Kept
    chain: Chain
    matmul: Matmul
    strict_ladder: bool


@dataclass(frozen=True)
class Options:
    """:class:`ChainOptions` with their defaults, checked."""

    shape: Sequence[int] | None = None
    init: Init = "uniform"
    seed: Seed | None = None
    generator: Generators | None = None
    sample_ids: SampleIds | None = None
    sample_offset: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device | str | None = None
    callback: Callback | None = None
    progress: bool = False
    trajectory: int = 0
    resume: ChainState | None = None
    full_output: bool = False
    impl: str = "auto"
    drift: ScoreFunction | None = None
    clamp: tuple[float, float] | None = None
    clamp_denoised: bool = True
    inpainting: Inpainting | None = None
    order: Order = "score"
    cuda_graph: CudaGraph = "auto"
    non_finite: NonFinite | None = "raise"
    telemetry: Kept = 0
    chain: Chain = "auto"
    matmul: Matmul = "fp32"
    strict_ladder: bool = True

    def __post_init__(self) -> None:
        keep = int(self.trajectory) if isinstance(self.trajectory, bool) else self.trajectory
        object.__setattr__(self, "trajectory", integer("trajectory", keep, 0, 2**31))
        if self.trajectory and not self.full_output:
            raise ValueError("trajectory= is returned in the result object; add full_output=True")
        object.__setattr__(self, "telemetry", check_watching(self.non_finite, self.telemetry, self.full_output))
        if self.order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {self.order!r}")
        if not isinstance(self.cuda_graph, bool) and self.cuda_graph != "auto":
            raise ValueError(f"cuda_graph must be 'auto', True or False, got {self.cuda_graph!r}")
        if self.chain not in get_args(Chain):
            raise ValueError(f"chain must be one of {', '.join(get_args(Chain))}, got {self.chain!r}")
        check_matmul(self.matmul)
        if self.matmul != "fp32" and self.chain == "loop":
            raise ValueError(
                f"matmul={self.matmul!r} is of the kernel, which chain='loop' leaves out; give one of them"
            )
        if self.drift is not None:
            check_callable("drift", self.drift, "drift(x, labels)")
        if self.clamp is not None:
            object.__setattr__(self, "clamp", _interval(self.clamp))
        for name in ("clamp_denoised", "strict_ladder"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.inpainting is not None and not isinstance(self.inpainting, Inpainting):
            raise TypeError(
                f"inpainting must be a fastlangevin.Inpainting(mask, known), got {type(self.inpainting).__name__}"
            )

    def record(self) -> dict[str, Any]:
        """What of this decides the samples, where it is not the default."""
        record: dict[str, Any] = {}
        if self.order != "score":
            record["order"] = self.order
        if self.clamp is not None:
            record["clamp"] = list(self.clamp)
            if not self.clamp_denoised:
                record["clamp_denoised"] = False
        if self.drift is not None:
            record["drift"] = True
        if self.inpainting is not None:
            record["inpainting"] = self.inpainting.noise
        if self.matmul != "fp32":
            record["matmul"] = self.matmul
        return record


def list_options(sampler: Callable[..., Any]) -> None:
    """Lets a sampler's signature and docstring, which help and :mod:`inspect` show, have its options by their names."""
    signature = inspect.signature(sampler)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Options)
        if field.name not in signature.parameters
    ]
    sampler.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    if sampler.__doc__ and ChainOptions.__doc__:  # python -OO has none
        _, _, entries = inspect.cleandoc(ChainOptions.__doc__).partition("Attributes:\n")
        sampler.__doc__ = inspect.cleandoc(sampler.__doc__).replace(OPTIONS_ENTRY, entries)


def check_callable(name: str, function: object, call: str) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError(f"{name} must be callable as {call}, got {type(function).__name__}")
    return function


def _interval(clamp: object) -> tuple[float, float]:
    if isinstance(clamp, Tensor | np.ndarray):
        clamp = clamp.tolist()
    if not isinstance(clamp, Sequence) or isinstance(clamp, str) or len(clamp) != 2:
        raise TypeError(f"clamp must be a pair (low, high) such as (0.0, 1.0), got {shown(clamp)}")
    low, high = (real("clamp", each, "a pair of numbers such as (0.0, 1.0)") for each in clamp)
    if not low < high:
        raise ValueError(f"clamp must have low below high, got ({low}, {high})")
    return low, high
