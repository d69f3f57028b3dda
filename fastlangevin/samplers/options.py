"""Options of all samplers: the start of a chain, its random address, what is watched, and what acts on every update."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from fastlangevin.noise import SampleOptions, integer
from fastlangevin.ops.mlp_chain import Matmul, check_matmul
from fastlangevin.samplers.chain import Callback, ChainState
from fastlangevin.samplers.watching import Kept, NonFinite, check_watching
from fastlangevin.schemes import Inpainting
from fastlangevin.scores import ScoreFunction
from fastlangevin.values import real, shown

__all__ = [
    "Chain",
    "ChainOptions",
    "CudaGraph",
    "Init",
    "Order",
    "RunOptions",
    "SampleIds",
    "check_callable",
    "check_names",
    "complete",
    "options_record",
    "takes",
]

Init = Tensor | Literal["uniform", "normal"]
Order = Literal["score", "noise"]
Chain = Literal["auto", "loop", "kernel"]
CudaGraph = bool | Literal["auto"]
SampleIds = Tensor | Sequence[int]
Function = TypeVar("Function", bound=Callable[..., Any])


class RunOptions(SampleOptions, total=False):
    """Keyword arguments of every sampler, beside the seed and the samples of :class:`fastlangevin.noise.SampleOptions`.

    Attributes:
        callback: called with a :class:`StepInfo` after every update; returning True stops the chain.
        progress: show a progress bar.
        trajectory: keep the states after 0, k, 2k, ... updates, on the device; 0 keeps none. Needs ``full_output``.
        resume: a :class:`ChainState` to go on from; the chain ends with the bits it would have had. What decides the
            samples must be given again and is compared; but of the score nothing is, of a ``drift`` only that there is
            one, and of an ``inpainting`` its kind of noise, not its mask and data.
        full_output: return a :class:`SamplingResult`.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        clamp: ``(low, high)``, a pair of numbers, to which the state is clamped after every update and, with
            ``denoise=True``, after the denoise step.
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
    """

    callback: Callback | None
    progress: bool
    trajectory: int
    resume: ChainState | None
    full_output: bool
    impl: str
    clamp: tuple[float, float] | None
    order: Order
    cuda_graph: CudaGraph
    non_finite: NonFinite | None
    telemetry: Kept


class ChainOptions(RunOptions, total=False):
    """Keyword arguments of every sampler on a ladder, beside those of :class:`RunOptions`.

    Attributes:
        shape: ``(B, ...)`` of the samples, where ``init`` is not a tensor.
        init: ``"uniform"``, U(0, 1) as in the paper; ``"normal"``, N(0, sigma_1^2); or the initial states, which are
            not changed.
        dtype: of the samples, where ``init`` is not a tensor.
        device: likewise.
        drift: ``drift(x, labels)``, added to the score in every update, such as the gradient of a measurement's log
            likelihood in an inverse problem. The denoise step leaves it out.
        clamp_denoised: False leaves the result of the denoise step as it is.
        inpainting: an :class:`Inpainting`: a region that is known.
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
    dtype: torch.dtype
    device: torch.device | str | None
    drift: ScoreFunction | None
    clamp_denoised: bool
    inpainting: Inpainting | None
    chain: Chain
    matmul: Matmul
    strict_ladder: bool


DEFAULTS: ChainOptions = {
    "shape": None,
    "init": "uniform",
    "seed": None,
    "generator": None,
    "sample_ids": None,
    "sample_offset": 0,
    "dtype": torch.float32,
    "device": None,
    "callback": None,
    "progress": False,
    "trajectory": 0,
    "resume": None,
    "full_output": False,
    "impl": "auto",
    "drift": None,
    "clamp": None,
    "clamp_denoised": True,
    "inpainting": None,
    "order": "score",
    "cuda_graph": "auto",
    "non_finite": "raise",
    "telemetry": 0,
    "chain": "auto",
    "matmul": "fp32",
    "strict_ladder": True,
}


def check_names(kind: type[Any], given: Mapping[str, object]) -> None:
    """Raises TypeError for options that are none of ``kind``, a TypedDict, and names them."""
    unknown = [f"{name}=" for name in given if name not in kind.__annotations__]
    if unknown:
        raise TypeError(
            f"there is no option {', '.join(unknown)} here; the options are those of "
            f"{kind.__module__.rpartition('.')[0]}.{kind.__name__}"
        )


def complete(given: RunOptions, kind: type[Any]) -> ChainOptions:
    """The options that a user gave, checked, with the defaults of all others.

    Args:
        given: options of a sampler.
        kind: those that it takes, :class:`ChainOptions` or :class:`RunOptions`.

    Raises:
        TypeError, ValueError: an option is of the wrong kind or out of range, or there is none of its name.
    """
    check_names(kind, given)
    chosen: ChainOptions = {**DEFAULTS, **given}
    keep, full_output = chosen["trajectory"], chosen["full_output"]
    chosen["trajectory"] = integer("trajectory", int(keep) if isinstance(keep, bool) else keep, 0, 2**31)
    if chosen["trajectory"] and not full_output:
        raise ValueError("trajectory= is returned in the result object; add full_output=True")
    chosen["telemetry"] = check_watching(chosen["non_finite"], chosen["telemetry"], full_output)
    order, cuda_graph, chain, matmul = chosen["order"], chosen["cuda_graph"], chosen["chain"], chosen["matmul"]
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
    if not isinstance(cuda_graph, bool) and cuda_graph != "auto":
        raise ValueError(f"cuda_graph must be 'auto', True or False, got {cuda_graph!r}")
    if chain not in get_args(Chain):
        raise ValueError(f"chain must be one of {', '.join(get_args(Chain))}, got {chain!r}")
    check_matmul(matmul)
    if matmul != "fp32" and chain == "loop":
        raise ValueError(f"matmul={matmul!r} is of the kernel, which chain='loop' leaves out; give one of them")
    if chosen["callback"] is not None:
        check_callable("callback", chosen["callback"], "callback(info)")
    if chosen["drift"] is not None:
        check_callable("drift", chosen["drift"], "drift(x, labels)")
    if chosen["clamp"] is not None:
        chosen["clamp"] = _interval(chosen["clamp"])
    for name, value in (("clamp_denoised", chosen["clamp_denoised"]), ("strict_ladder", chosen["strict_ladder"])):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    return chosen


def options_record(options: ChainOptions) -> dict[str, Any]:
    """The options that decide the samples, if they are not the defaults."""
    clamp = options["clamp"]
    record: dict[str, Any] = {}
    if options["order"] != "score":
        record["order"] = options["order"]
    if clamp is not None:
        record["clamp"] = list(clamp)
        if not options["clamp_denoised"]:
            record["clamp_denoised"] = False
    if options["drift"] is not None:
        record["drift"] = True
    if options["matmul"] != "fp32":
        record["matmul"] = options["matmul"]
    return record


def takes(kind: type[Any], defaults: Mapping[str, object]) -> Callable[[Function], Function]:
    """Lists the options of ``kind``, a TypedDict, in a function's signature, which help and :mod:`inspect` show."""

    types = {name: getattr(each, "__forward_arg__", each) for name, each in kind.__annotations__.items()}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
        for name, default in defaults.items()
        if name in types
    ]

    def listing(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return function

    return listing


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
