"""Score functions: any callable ``(x, level) -> score``, and adapters for networks with other conventions.

``x`` is ``(B, ...)``, ``level`` an int64 tensor ``(B,)`` of indices into the ladder, 0 for the largest sigma. In
samplers a score may work in place on both and may use autograd: see :class:`fastlangevin.calling.Guarded`.

A label means a noise level only on the ladder that the score was built with. Scores that know theirs have it as
``sigmas``: the networks of :mod:`fastlangevin.models`, results of :func:`adapt`, mixtures on a ladder, modules with a
buffer of that name. Samplers refuse another one, see :func:`check_ladder`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from fastlangevin.calling import Guarded, wrong_shape
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.memory import lasting, observed
from fastlangevin.models.inference import SamplingNet
from fastlangevin.ops.arguments import compute_dtype

__all__ = ["ScoreFunction", "adapt", "check_ladder"]

ScoreFunction = Callable[[Tensor, Tensor], Tensor]
Takes = Literal["labels", "sigma"]
Output = Literal["score", "scaled", "noise", "denoised"]

# Relative: a geometric ladder computed in fp32 is up to 2e-6 from that in fp64, and levels are further apart than 1e-3.
SAME_LEVEL = 1e-5


class Known(NamedTuple):
    """The ladder that a score was built with, and how far its levels may be rounded, relatively."""

    sigmas: list[float]
    rounding: float


def check_ladder(
    score: object, sigmas: list[float], strict: bool, *, name: str = "score", ladder: str = "sigmas"
) -> None:
    """Raises if a score was built with another ladder than it is to be used on.

    Ladders that differ by the rounding of fp32, or of the dtype in which the score keeps its own, are the same. A score
    inside a function of the caller's cannot be seen. Nothing is read while a graph is captured or a program compiled.

    Args:
        score: called with labels that index ``sigmas``.
        sigmas: a ladder, as :func:`fastlangevin.ladders.check_sigmas` returns it.
        strict: whether to look at all.
        name: what errors call the score.
        ladder: what they call the ladder.

    Raises:
        ValueError: the ladders differ.
    """
    known = known_ladder(score) if strict else None
    if known is None:
        return
    own = known.sigmas
    pairs = enumerate(zip(sigmas, own, strict=False))
    apart = next((i for i, (one, other) in pairs if not math.isclose(one, other, rel_tol=known.rounding)), None)
    if len(sigmas) != len(own):
        found = f"its last is level number {len(sigmas) - 1}, but the network was built with {len(own)} levels"
    elif apart is not None:
        found = f"its level number {apart} is {sigmas[apart]:.6g}, but the network's is {own[apart]:.6g}"
    else:
        return
    raise ValueError(
        f"{ladder} must be the ladder that {name} was built with, since labels are places in that, got another: {found}"
        "; take the network's own, its .sigmas, or strict_ladder=False to insist on this one"
    )


def known_ladder(score: object) -> Known | None:
    """The ladder that a score, or what it wraps, was built with; None where there is none to be read."""
    for inner in _unwrapped(score):
        sigmas = getattr(inner, "sigmas", None)
        if isinstance(sigmas, Tensor):
            unreadable = torch.compiler.is_compiling() or observed() or sigmas.is_meta
            if unreadable or (sigmas.is_cuda and torch.cuda.is_current_stream_capturing()):
                return None
        if sigmas is not None and not callable(sigmas):
            try:
                values = check_sigmas(sigmas)
            except (TypeError, ValueError):
                continue  # it calls something else by this name
            dtype = getattr(sigmas, "dtype", None)
            if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
                return Known(values, max(SAME_LEVEL, torch.finfo(dtype).eps))
            return Known(values, SAME_LEVEL)
    return None


def _unwrapped(score: object) -> Iterator[object]:
    """A score, then what it hands its arguments on to, as far as that can be told."""
    while score is not None:
        yield score
        if isinstance(score, FunctionType):
            # Not by its __dict__: PyTorch 2.11 cannot compile that of a function that is made in the program.
            score = getattr(score, "__wrapped__", None)
            continue
        inside = vars(score) if hasattr(score, "__dict__") else {}
        modules: dict[str, Any] = inside.get("_modules", {}) if isinstance(score, nn.Module) else {}
        if isinstance(score, SamplingNet):
            score = score.net
        elif "_orig_mod" in modules:  # torch.compile
            score = modules["_orig_mod"]
        elif "module" in modules:  # DataParallel, DistributedDataParallel, AveragedModel and others
            score = modules["module"]
        elif isinstance(score, partial):
            score = score.func
        else:
            score = score.__self__ if isinstance(score, MethodType) else inside.get("__wrapped__")


def adapt(
    net: Callable[[Tensor, Tensor], Tensor],
    sigmas: Sigmas,
    *,
    takes: Takes = "labels",
    output: Output = "score",
    strict_ladder: bool = True,
) -> ScoreFunction:
    """A score function from a network of another convention.

    Args:
        net: called as ``net(x, labels)`` or ``net(x, sigma)``.
        sigmas: the ladder that labels index, largest first.
        takes: ``"labels"``, int64 ``(B,)``; or ``"sigma"``, the noise level in the state's dtype, ``(B,)``.
        output: what the network returns, h: ``"score"``; ``"scaled"``, score = h/sigma; ``"noise"``, the predicted z of
            x = data + sigma z, score = -h/sigma; ``"denoised"``, the predicted data, score = (h - x)/sigma^2.
        strict_ladder: refuse another ladder than that of a network that takes labels and has its own as ``sigmas``.

    Returns:
        A callable ``(x, labels) -> score`` with the ladder as its attribute ``sigmas``. The score is what ``net``
        returns with ``output="score"``; of the others it is computed, and returned, in fp32 for states of 16 bits.

    Raises:
        TypeError: ``net`` cannot be called, or ``sigmas`` is no ladder.
        ValueError: ``takes`` or ``output`` is not known, or the network was built with another ladder.
    """
    if takes not in get_args(Takes):
        raise ValueError(f"takes must be one of {', '.join(get_args(Takes))}, got {takes!r}")
    if output not in get_args(Output):
        raise ValueError(f"output must be one of {', '.join(get_args(Output))}, got {output!r}")
    if not callable(net):
        raise TypeError(f"net must be callable as net(x, {takes}), got {type(net).__name__}")
    # State and labels are needed once more after the call, in which the network may write to them.
    call = net if output == "score" else Guarded("net", net, like_state=False)
    levels = check_sigmas(sigmas)
    if takes == "labels":
        check_ladder(net, levels, strict_ladder, name="net")
    ladder = torch.tensor(levels, dtype=torch.float64, device="cpu")

    tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def score(x: Tensor, labels: Tensor) -> Tensor:
        where = x.device, x.dtype
        found = tables.get(where) if lasting() else None
        if found is None:
            found = ladder.to(x.device, x.dtype), ladder.to(x.device, compute_dtype(x))
            if lasting():
                # Waits for the device: once, not at every call.
                tables[where] = found
        told, wide = found
        value = call(x, labels if takes == "labels" else told[labels])
        if not isinstance(value, Tensor):
            raise TypeError(f"net must return a tensor of the shape of x, got {type(value).__name__}")
        if value.shape != x.shape:
            raise ValueError(wrong_shape("net", value, x))
        if output == "score":
            return value
        # In 16 bits sigma^2 would be rounded to a few bits, or to zero.
        sigma = wide[labels].reshape(-1, *(1,) * (x.ndim - 1))
        if output == "denoised":
            return (value.to(sigma.dtype) - x) / sigma**2
        return value / sigma if output == "scaled" else -value / sigma

    score.sigmas = levels  # type: ignore[attr-defined]
    return score
