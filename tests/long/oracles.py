"""What generated calls must return, computed apart: on contiguous clones, in fp32 and fp64.

Of the package it takes the normals of the reference alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastlangevin import reference
from tests.long.arrangements import same_bits
from tests.long.generated_arguments import Arguments

__all__ = ["ORACLES"]


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _ids(k: Arguments, batch: int) -> Tensor:
    ids = k.get("sample_ids")
    if ids is None:
        return torch.arange(batch) + k.get("sample_offset", 0)
    return torch.as_tensor(ids, dtype=torch.int64)


def _seed(value: Any) -> Any:
    return value if isinstance(value, Tensor) else int(value)


def _normals(k: Arguments, shape: tuple[int, ...], purpose: int, number: int, make: Any = reference.randn) -> Tensor:
    if not math.prod(shape):
        return torch.zeros(shape)
    ids = _ids(k, shape[0] if shape else 1)
    return make(math.prod(shape[1:]), ids, seed=_seed(k["seed"]), draw=number, purpose=purpose).reshape(shape)


def _factor(value: Any, x: Tensor) -> Tensor:
    made = value.to(_wide(x)) if isinstance(value, Tensor) else torch.tensor(float(value), dtype=_wide(x))
    return made.reshape(-1, *(1,) * (x.ndim - 1)) if made.ndim == 1 and x.ndim else made.reshape(made.shape[: x.ndim])


def _noise(k: Arguments, x: Tensor) -> Tensor:
    """z in the computing dtype: the draws left to right, each product rounded."""
    if k.get("noise") is not None:
        return k["noise"].contiguous().to(_wide(x))
    draws, first = k.get("draws"), int(k["draw"])
    if draws is None:
        pairs = [(1.0, first)]
    elif isinstance(draws[0], Tensor):
        pairs = list(zip(*(each.tolist() for each in draws), strict=True))
    else:
        pairs = [(float(weight), first + int(offset)) for weight, offset in draws]
    total = None
    for weight, number in pairs:
        z = _normals(k, tuple(x.shape), k.get("purpose", 1), number).to(_wide(x))
        one = torch.tensor(weight, dtype=_wide(x)) * z
        total = one if total is None else total + one
    assert total is not None
    return total


def _step(k: Arguments) -> list[Tensor]:
    """The new state; and the record of faults, where there is one."""
    x, several = k["x"].contiguous(), not isinstance(k["score"], Tensor)
    wide = _wide(x)
    moved = _factor(k["c"], x) * x.to(wide)
    for factor, score in zip(*((k["a"], k["score"]) if several else ([k["a"]], [k["score"]])), strict=True):
        moved = moved + _factor(factor, x) * score.contiguous().to(wide)
    if k["b"] is not None:
        moved = moved + _factor(k["b"], x) * _noise(k, x)
    result = moved.to(x.dtype)
    if k.get("mask") is not None:
        result = torch.where(k["mask"], k["known"], result)
    fault = k.get("fault")
    if fault is None:
        return [result]
    number = int(k["draw"] if k.get("number") is None else k["number"])
    rows, before = (result, x) if x.ndim else (result[None], x[None])
    record = fault.clone()
    for sample, earlier in enumerate(fault.tolist()):
        if k.get("freeze") and earlier < number:
            rows[sample] = before[sample]
        if not bool(rows[sample].isfinite().all()):
            record[sample] = min(earlier, number)
    return [result, record]


def _random(make: Any) -> Callable[[Arguments], list[Tensor]]:
    def oracle(k: Arguments) -> list[Tensor]:
        shape = tuple(k["shape"])
        return [_normals(k, shape, k.get("purpose", 128), int(k["draw"]), make).to(k["dtype"])]

    return oracle


def _labels(k: Arguments, batch: int, levels: int, number: int) -> Tensor:
    if k.get("labels") is not None:
        return k["labels"]
    uniform = _normals(k, (batch, 1), 3, number, reference.rand)[:, 0]
    return (uniform.double() * levels).floor().long()  # exact: 24 bits times at most 2 more


def _perturb(k: Arguments) -> list[Tensor]:
    x = k["x"].contiguous()
    wide = _wide(x)
    labels = _labels(k, x.shape[0], k["sigmas"].numel(), int(k["draw"]))
    z = _normals(k, tuple(x.shape), 2, int(k["draw"])) if k.get("noise") is None else k["noise"].contiguous()
    sigma = k["sigmas"].to(wide)[labels].reshape(-1, *(1,) * (x.ndim - 1))
    return [(x.to(wide) + sigma * z.to(wide)).to(x.dtype), labels]


def _close(found: Tensor, exact: Tensor, bound: Tensor) -> bool:
    """Within a bound on the error before the last rounding, which may add half a unit of the result's dtype."""
    if found.shape != exact.shape:
        return False
    nan = exact.isnan()
    half = torch.finfo(found.dtype).eps * exact.abs() + torch.finfo(found.dtype).smallest_normal
    error = (found.double() - exact).abs()
    overflow = exact.abs() > torch.finfo(found.dtype).max * 0.999
    same = (error <= bound + half) | (found.double() == exact) | overflow
    return torch.equal(found.isnan(), nan) and bool(same[~nan].all())


def _dsm(k: Arguments, found: list[Tensor]) -> bool:
    """fp64 on the perturbed samples' bits. All terms of the sums are squares, so their rounding errors are relative."""
    x = k["x"].contiguous()
    ladder = torch.tensor(k["sigmas"], dtype=torch.float64)
    labels = _labels(k, x.shape[0], ladder.numel(), int(k["step"]))
    number = int(k["step"])
    z = _normals(k, tuple(x.shape), 2, number)
    sigma = ladder[labels].reshape(-1, *(1,) * (x.ndim - 1))
    noisy = (x.to(_wide(x)) + sigma.to(_wide(x)) * z.to(_wide(x))).to(x.dtype)
    h = (-0.5 * noisy).double()
    z = z.double()
    residual = {
        "score": lambda: sigma * h + z,
        "scaled": lambda: h + z,
        "noise": lambda: z - h,
        "denoised": lambda: (h - x.double()) / sigma,
    }[k["output"]]()
    weight = ladder[labels] ** (k.get("anneal_power", 2.0) - 2.0)
    each = 0.5 * weight * residual.square().flatten(1).sum(1)
    # A residual is two operations on terms that may cancel, so its error is relative to their sizes and not to it.
    size = (
        0.5
        * weight
        * (2 * (sigma.clamp(min=1) * h).abs() + 2 * z.abs() + x.double().abs() / sigma).square().flatten(1).sum(1)
    )
    eps = torch.finfo(_wide(x)).eps
    terms = x[0].numel() + x.shape[0] + 8
    exact, size = {"none": (each, size), "sum": (each.sum(), size.sum()), "mean": (each.mean(), size.mean())}[
        k["reduction"]
    ]
    return _close(found[0], exact, terms * eps * size)


def _elu(k: Arguments, found: list[Tensor]) -> bool:
    terms = [k[name].contiguous() for name in sorted(k) if name.startswith("term")]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    exact = torch.where(total > 0, total.double(), torch.expm1(total.double()))
    # exp and the subtraction of 1 in the computing dtype: a few units of 1.
    bound = torch.full_like(exact, 4 * torch.finfo(_wide(total)).eps)
    return same_bits(found[0], total) and _close(found[1], exact, bound)


def _group_norm(k: Arguments, found: list[Tensor]) -> bool:
    """fp64, within the rounding errors of means and variances of n members: n + 16 units, as they are magnified."""
    x, groups = k["x"].contiguous(), k["groups"]
    wide = x.double()
    if not x.numel():
        return found[0].shape == x.shape and found[0].dtype == x.dtype
    members = wide.reshape(x.shape[0], groups, -1)
    n = members.shape[2]
    rstd = (members.var(2, correction=0) + k.get("eps", 1e-5)).rsqrt()[..., None]
    normal = ((members - members.mean(2, keepdim=True)) * rstd).reshape(x.shape)
    magnified = (rstd * members.abs().amax(2, keepdim=True)).expand_as(members).reshape(x.shape)
    shape = (x.shape[1], *(1,) * (x.ndim - 2))
    weight, bias = (
        torch.full(shape, start, dtype=torch.float64) if k.get(name) is None else k[name].double().reshape(shape)
        for name, start in (("weight", 1.0), ("bias", 0.0))
    )
    y = weight * normal + bias
    units = (n + 16) * torch.finfo(_wide(x)).eps
    bound = units * (weight.abs() * (magnified + magnified**2 * normal.abs() + normal.abs()) + bias.abs() + 1)
    if k["activation"]:
        y, bound = y * torch.sigmoid(y), 1.1 * bound  # the slope of SiLU is below 1.1
    return _close(found[0], y, bound)


def _chain(k: Arguments, alphas: list[float], last: float | None = None) -> list[Tensor]:
    """One update for each step size, then perhaps the step to the posterior mean with its coefficient."""
    x = k["init"].contiguous()
    for number, alpha in enumerate(alphas):
        scale = math.sqrt(k.get("temperature", 1.0) * alpha)
        one = {**k, "x": x, "score": -0.5 * x, "c": 1.0, "a": alpha / 2, "b": scale or None, "draw": number}
        (x,) = _step(one)
    return [x] if last is None else _step({**k, "x": x, "score": -0.5 * x, "c": 1.0, "a": last, "b": None})


def _epsilon(k: Arguments) -> float:
    return float(k["epsilon"]) if "epsilon" in k else 2.0 * float(k["step_lr"])


def _langevin(k: Arguments) -> list[Tensor]:
    return _chain(k, [_epsilon(k)] * k["steps"])


def _annealed(k: Arguments) -> list[Tensor]:
    sigmas = k["sigmas"]  # their squares and quotients are exact
    alphas = [_epsilon(k) * sigma**2 / sigmas[-1] ** 2 for sigma in sigmas for _ in range(k["steps_per_level"])]
    return _chain(k, alphas, sigmas[-1] ** 2 if k["denoise"] else None)


def _ladder(geometric: bool) -> Callable[[Arguments, list[Tensor]], bool]:
    def oracle(k: Arguments, found: list[Tensor]) -> bool:
        high, low, levels = float(k["sigma_1"]), float(k["sigma_L"]), k["levels"]
        share = np.arange(levels) / (levels - 1)
        ends = np.log([high, low]) if geometric else np.array([high, low])
        exact = ends[0] + (ends[1] - ends[0]) * share
        # Of the logarithm, whose error the exponential makes relative; or of the larger end.
        bound = 1e-14 * (abs(ends).max() + 1)
        error = abs(found[0].numpy() - (np.exp(exact) if geometric else exact))
        return bool((error <= bound * (np.exp(exact) if geometric else 1.0)).all())

    return oracle


def _exact(oracle: Callable[[Arguments], list[Tensor]]) -> Callable[[Arguments, list[Tensor]], bool]:
    def compare(k: Arguments, found: list[Tensor]) -> bool:
        wanted = oracle(k)
        return len(found) == len(wanted) and all(map(same_bits, found, wanted))

    return compare


ORACLES: dict[str, Callable[[Arguments, list[Tensor]], bool]] = {
    "step": _exact(_step),
    "step_": _exact(_step),
    "randn": _exact(_random(reference.randn)),
    "rand": _exact(_random(reference.rand)),
    "perturb": _exact(_perturb),
    "dsm_loss": _dsm,
    "add_elu": _elu,
    "group_norm": _group_norm,
    "langevin": _exact(_langevin),
    "annealed_langevin": _exact(_annealed),
    "geometric_sigmas": _ladder(True),
    "linear_sigmas": _ladder(False),
}
