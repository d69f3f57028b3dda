"""Generated calls of the public operations: each returns what an independent oracle computes, or says what is wrong.

    python -m tests.long.calls --examples 100000 --addresses 100000 --json results.json

Calls: of :data:`tests.long.generated_calls.OPERATIONS`, in any dtype and arrangement in memory, half of them with a
defect or two; the tests let hypothesis choose, and shrink. A well-formed call must return the oracle's bits (for sums,
norms and losses, its values within a bound on roundings), and change nothing but what it writes; one with a defect must
raise TypeError, ValueError or RuntimeError with the name of an argument that is wrong, and change nothing at all. The
oracle is :mod:`tests.long.oracles`.

Addresses: that packing them into counters and keys is injective and can be undone.

Controls, in the place of ``step``: an operation that ignores the arrangement of its argument, one that takes a wrong
argument silently, and those that take a term's coefficient or a draw's weight for another's, or the number of a draw
for that of the step; a packing that loses bits of the sample's id.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import fastlangevin as fl
from fastlangevin import reference
from fastlangevin.ops import add_elu, group_norm
from tests.long.arrangements import misread, same_bits
from tests.long.generated_calls import Call, generate
from tests.long.oracles import ORACLES
from tests.long.record import finish, parser

__all__ = ["MISTAKES", "PUBLIC", "BrokenError", "address_faults", "check", "controls", "run"]

Operation = Callable[..., Any]


class BrokenError(AssertionError):
    """A call that crashed, returned something else than the oracle, or was not refused as it should be."""


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
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)(map(_kept, value))
    return value.detach().clone() if isinstance(value, Tensor) and value.layout is torch.strided else value


def _tensors(name: str, value: Any, before: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The tensors of an argument, each with what it was before the call."""
    if isinstance(value, list | tuple):
        for place, (each, other) in enumerate(zip(value, before, strict=True)):
            yield from _tensors(f"{name}[{place}]", each, other)
    elif isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu":
        yield name, value, before


def _named(argument: str, message: str) -> bool:
    """Whether an error is about an argument. Errors that compare others with x call it the state."""
    if argument in ("a", "b", "c"):
        return re.match(rf"{argument}(\[\d\])? (must|with|requires|is)\b", message) is not None
    if argument == "number":  # a word of many messages
        return re.search(r"^number\b|\bnumber=", message) is not None
    words = {"x": ["x", "state"], "init": ["init", "state"], "sample_offset": ["sample_offset", "sample_ids"]}
    words["score"] = ["score", "scores"]
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
        if call.arguments.get("fault") is not None:
            found.append(call.arguments["fault"])
        if not ORACLES[call.operation](before, [each.detach() for each in found]):
            raise BrokenError(f"another result than the oracle's: {call}: {found}")
        outcome = "returned"
    may_change = [written, call.arguments.get("fault")] if outcome == "returned" else []
    for argument, value in call.arguments.items():
        for name, tensor, kept in _tensors(argument, value, before[argument]):
            free = tensor.is_complex() or any(_shares(tensor, each) for each in may_change)
            if not free and not same_bits(tensor, kept):
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


def _swaps_terms(**k: Any) -> Any:
    if isinstance(k["score"], list | tuple) and isinstance(k["a"], list | tuple):
        k["a"] = k["a"][::-1]
    return fl.step(**k)


def _swaps_draws(**k: Any) -> Any:
    draws = k.get("draws")
    if isinstance(draws, list | tuple) and len(draws) == 2 and all(isinstance(each, Tensor) for each in draws):
        k["draws"] = (draws[0].flip(0), draws[1])
    elif isinstance(draws, list | tuple) and all(isinstance(each, list | tuple) and len(each) == 2 for each in draws):
        k["draws"] = [(weight, offset) for (weight, _), (_, offset) in zip(draws[::-1], draws, strict=True)]
    return fl.step(**k)


def _counts_by_draw(**k: Any) -> Any:
    return fl.step(**{**k, "number": k["draw"]} if k.get("number") is not None else k)


MISTAKES: dict[str, Operation] = {
    "ignores strides": _ignores_strides,
    "takes any draw": _takes_anything,
    "swaps coefficients of terms": _swaps_terms,
    "swaps weights of draws": _swaps_draws,
    "takes its draw for its number": _counts_by_draw,
}


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
