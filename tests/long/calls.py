"""Generated calls of the public operations: each returns what an independent oracle computes, or says what is wrong.

    python -m tests.long.calls --examples 100000 --addresses 100000 --json results.json

Calls: of :data:`tests.long.generated_calls.OPERATIONS`, in any dtype and arrangement in memory, half of them with a
defect or two; the tests let hypothesis choose, and shrink. A well-formed call must return the oracle's bits (for sums,
norms and losses, its values within a bound on roundings), and change nothing but what it writes; one with a defect must
raise TypeError, ValueError or RuntimeError with the name of an argument that is wrong, and change nothing at all. The
oracle is written here, on contiguous clones in fp32 and fp64; of the package it takes the normals of the reference
alone.

Addresses: that packing them into counters and keys is injective and can be undone.

Controls: an operation that ignores the arrangement of its argument, and one that takes a wrong argument silently, in
the place of ``step``; a packing that loses bits of the sample's id.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import fastlangevin as fl
from fastlangevin import reference
from fastlangevin.ops import add_elu, group_norm
from tests.long.arrangements import misread, same_bits
from tests.long.generated_calls import Arguments, Call, generate
from tests.long.record import finish, parser

__all__ = ["MISTAKES", "PUBLIC", "BrokenError", "address_faults", "check", "controls", "run"]

Operation = Callable[..., Any]


class BrokenError(AssertionError):
    """A call that crashed, returned something else than the oracle, or was not refused as it should be."""


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


def _step(k: Arguments) -> list[Tensor]:
    x, score = k["x"].contiguous(), k["score"].contiguous()
    wide = _wide(x)
    moved = _factor(k["c"], x) * x.to(wide) + _factor(k["a"], x) * score.to(wide)
    if k["b"] is not None:
        given = k.get("noise")
        number = int(k["draw"])
        z = _normals(k, tuple(x.shape), k.get("purpose", 1), number) if given is None else given.contiguous()
        moved = moved + _factor(k["b"], x) * z.to(wide)
    result = moved.to(x.dtype)
    return [result if k.get("mask") is None else torch.where(k["mask"], k["known"], result)]


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


def _sum_with_elu(**k: Any) -> Any:
    return add_elu(*(k[name] for name in sorted(k) if name.startswith("term")), impl=k["impl"])


PUBLIC: dict[str, Operation] = {
    "step": fl.step,
    "step_": fl.step_,
    "randn": fl.randn,
    "rand": fl.rand,
    "perturb": fl.perturb,
    "dsm_loss": fl.dsm_loss,
    "add_elu": _sum_with_elu,
    "group_norm": group_norm,
    "langevin": fl.langevin,
    "annealed_langevin": fl.annealed_langevin,
    "geometric_sigmas": fl.geometric_sigmas,
    "linear_sigmas": fl.linear_sigmas,
}


def _kept(value: Any) -> Any:
    """A value as it is before the call."""
    return value.detach().clone() if isinstance(value, Tensor) and value.layout is torch.strided else value


def _named(argument: str, message: str) -> bool:
    """Whether an error is about an argument. Errors that compare others with x call it the state."""
    if argument in ("a", "b", "c"):
        return re.match(rf"{argument} (must|with|requires|is)\b", message) is not None
    words = {"x": ["x", "state"], "init": ["init", "state"], "sample_offset": ["sample_offset", "sample_ids"]}
    if argument.startswith("term "):
        return f"terms[{argument[5:]}]" in message
    return any(re.search(rf"\b{word}\b", message) for word in words.get(argument, [argument]))


def check(call: Call, operation: Operation | None = None) -> str:
    """Makes a call; "returned" or "refused", or :class:`BrokenError`."""
    before = {name: _kept(value) for name, value in call.arguments.items()}
    written = {"step_": call.arguments.get("x"), "step": call.arguments.get("out")}.get(call.operation)
    try:
        result = (operation or PUBLIC[call.operation])(**call.arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        if not call.wrong:
            raise BrokenError(f"a well-formed call was refused: {type(error).__name__}: {error}; {call}") from error
        if not any(_named(argument, str(error)) for argument in call.wrong):
            raise BrokenError(
                f"the error names none of {call.wrong}: {type(error).__name__}: {error}; {call}"
            ) from error
        outcome = "refused"
    except Exception as error:
        raise BrokenError(f"{type(error).__name__}: {error}; {call}") from error
    else:
        if call.wrong:
            raise BrokenError(f"wrong {call.wrong} passed silently: {call}")
        found = [result] if isinstance(result, Tensor) else list(result)
        if not ORACLES[call.operation](before, [each.detach() for each in found]):
            raise BrokenError(f"another result than the oracle's: {call}: {found}")
        outcome = "returned"
    for name, value in call.arguments.items():
        changed = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
        if changed and value.is_complex():
            continue
        if changed and not (outcome == "returned" and _shares(value, written)) and not same_bits(value, before[name]):
            raise BrokenError(f"{name} was changed: {call}")
    return outcome


def _shares(value: Tensor, written: Any) -> bool:
    return isinstance(written, Tensor) and value.untyped_storage().data_ptr() == written.untyped_storage().data_ptr()


def run(examples: int, start: int = 0) -> tuple[Counter[str], list[str]]:
    """Checks generated calls, each of a seed of its own: how many returned and were refused, and what was broken."""
    counts: Counter[str] = Counter()
    broken = []
    for number in tqdm(range(start, start + examples), "calls", disable=None):
        call = generate(random.Random(number).choice)
        try:
            counts[f"{call.operation} {check(call)}"] += 1
        except BrokenError as error:
            broken.append(f"{number}: {str(error)[:500]}")
    return counts, broken


def _ignores_strides(**k: Any) -> Any:
    score = k["score"]
    if isinstance(score, Tensor) and score.layout is torch.strided and score.device.type == "cpu":
        k["score"] = misread(score, strides=False)
    return fl.step(**k)


def _takes_anything(**k: Any) -> Any:
    """Corrects a wrong draw number instead of refusing it."""
    draw = k["draw"]
    if isinstance(draw, int) and not 0 <= draw < 2**32:
        k["draw"] = draw % 2**32
    return fl.step(**k)


MISTAKES: dict[str, Operation] = {"ignores strides": _ignores_strides, "takes any draw": _takes_anything}


def controls(examples: int = 4000) -> dict[str, int]:
    """How many calls of ``step`` give a mistake in its place away."""
    caught = dict.fromkeys(MISTAKES, 0)
    for name, mistake in MISTAKES.items():
        for number in range(examples):
            try:
                check(generate(random.Random(number).choice, ("reference",), ("step",)), mistake)
            except BrokenError:
                caught[name] += 1
    return caught


@contextmanager
def _recorded(seen: list[Tensor]) -> Any:
    """The counters and keys that the reference hands to its generator, in the place of random words."""
    original = reference.random.philox

    def record(*words: Tensor, **_: Any) -> tuple[Tensor, ...]:
        seen.extend(word.broadcast_to(words[1].shape[0], words[0].shape[1]) for word in words)
        return words[:4]

    reference.random.philox = record
    try:
        yield
    finally:
        reference.random.philox = original


def _packed(seeds: Tensor, ids: Tensor, draw: int, purpose: int) -> Tensor:
    """Counter and key of each sample's first block, ``(N, 6)``."""
    seen: list[Tensor] = []
    with _recorded(seen):
        reference.words(4, ids, seed=seeds, draw=draw, purpose=purpose)
    return torch.stack([word[:, 0] for word in seen], 1)


def address_faults(count: int, *, lost_bits: int = 0, start: int = 0) -> dict[str, int]:
    """Pairs of addresses that differ in one to four fields, in one bit or many: how many are packed alike, or wrongly.

    Args:
        count: of pairs.
        lost_bits: the control: so many of the highest bits of a sample's id are dropped before packing.
        start: of the generator.
    """
    chance = random.Random(start)
    bits = (64, 56, 32, 8)
    edges = [[0, 1, 2**n - 1, 2 ** (n - 1), 2 ** min(32, n - 1), 2 ** min(32, n - 1) - 1] for n in bits]

    def field(place: int) -> int:
        return chance.choice(edges[place]) if chance.random() < 0.3 else chance.randrange(2 ** bits[place])

    faults = {"pairs": 0, "alike": 0, "not undone": 0}
    batch = 500
    while faults["pairs"] < count:
        # One call packs a batch of seeds and ids at one draw and purpose: the partners differ in these or in those.
        draws, purposes = [field(2), 0], [field(3), 0]
        far = chance.random() < 0.5
        draws[1] = draws[0] ^ (1 << chance.randrange(32)) if far and chance.random() < 0.7 else draws[0]
        purposes[1] = purposes[0] ^ (1 << chance.randrange(8)) if far and draws[1] == draws[0] else purposes[0]
        one = [(field(0), field(1)) for _ in range(batch)]
        two = []
        for s, i in one:
            if far and chance.random() < 0.5:
                two.append((s, i))
            elif chance.random() < 0.5:
                two.append((s ^ (1 << chance.randrange(64)), i))
            else:
                two.append((s, i ^ (1 << chance.randrange(56))))
        rows = []
        for pairs, draw, purpose in zip((one, two), draws, purposes, strict=True):
            seeds = torch.tensor([reference.signed64(s) for s, _ in pairs])
            ids = torch.tensor([i % 2 ** (56 - lost_bits) for _, i in pairs])
            packed = _packed(seeds, ids, draw, purpose)
            rows.append(packed)
            c0, c1, c2, c3, k0, k1 = packed.unbind(1)
            undone = (k1 << 32 | k0, (c3 & 0xFFFFFF) << 32 | c1, c2, c3 >> 24, c0)
            wanted = (
                seeds,
                torch.tensor([i for _, i in pairs]),
                torch.tensor(draw),
                torch.tensor(purpose),
                torch.tensor(0),
            )
            wrong = torch.zeros(batch, dtype=torch.bool)
            for got, want in zip(undone, wanted, strict=True):
                wrong |= got != want
            faults["not undone"] += int(wrong.sum())
        faults["alike"] += int((rows[0] == rows[1]).all(1).sum())
        faults["pairs"] += batch
    return faults


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--examples", type=int, default=100_000, help="generated calls")
    options.add_argument("--addresses", type=int, default=100_000, help="pairs of addresses")
    options.add_argument("--seed", type=int, default=0, help="the first call's, each having its own")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    counts, broken = run(chosen.examples, chosen.seed)
    faults = address_faults(chosen.addresses, start=chosen.seed)
    caught = controls()
    lost = address_faults(5000, lost_bits=1)["alike"]
    total = sum(counts.values())
    refused = sum(count for name, count in counts.items() if name.endswith("refused"))
    return finish(
        chosen.json,
        "bad input is refused clearly, and no call has a silent wrong answer; addresses never meet",
        f"python -m tests.long.calls --examples {chosen.examples} --addresses {chosen.addresses}",
        f"{total} calls: {total - refused} returned the oracle's result, {refused} refused with the argument's name; "
        f"{len(broken)} others; {faults['pairs']} pairs of addresses: {faults['alike']} packed alike, "
        f"{faults['not undone']} not undone",
        "; ".join(f"an update that {name}: {number} of 4000 calls caught" for name, number in caught.items())
        + f"; a packing that loses a bit: {lost} of 5000 pairs alike",
        bool(not broken and all(caught.values()) and lost and not faults["alike"] and not faults["not undone"]),
        calls=dict(sorted(counts.items())),
        broken=broken[:100],
        addresses=faults,
    )


if __name__ == "__main__":
    sys.exit(main())
