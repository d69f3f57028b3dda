"""Every arrangement in memory, shape and dtype, against contiguous operands on the reference: the same bits.

    python -m tests.long.layouts --json results.json

A case is an operation on operands of one shape, dtype and arrangement; the reference must have the bits that it has on
contiguous operands, and so must C++ and, in a part of the cases, Triton's interpreter. Where two elements share memory,
writing in place must be refused. What lies around an output that is written must stay. Moves have up to six terms with
coefficients of every kind, in any dtype, and several draws; they are written over each of their slots.

Controls: implementations that ignore the strides of their operands, or where their memory begins; that take a term's
coefficient for another's, or a draw's weight.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import fastlangevin as fl
from fastlangevin.ops import NO_FAULT, add_elu, group_norm, instance_norm
from tests.long.arrangements import ARRANGEMENTS, misread, same_bits, values
from tests.long.record import finish, parser

__all__ = ["MISTAKES", "MOVES", "Case", "cases", "interpreted", "plain", "wrong"]

SHAPES = [
    *((0,), (3, 0), (0, 4), (1,), (3,), (5,), (1, 17), (2, 127), (2, 128), (2, 129), (1, 1023), (1, 1024), (1, 1025)),
    *((1009,), (100, 12), (2, 3, 7), (2, 3, 5, 7), (2, 3, 32, 32), (2, 1, 3, 2, 5), (2, 2, 1, 2, 3, 3)),
]
FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
ADDRESS: dict[str, Any] = {"seed": 2**63 + 5, "draw": 3, "sample_offset": 2**33}
NUMBERS: dict[str, Any] = {"a": 0.3, "b": 0.7, "c": 0.9}
WEIGHT = torch.tensor([1.25, -0.5, 2.0, 0.75, -1.5, 0.25, 1.0])

Operands = dict[str, Tensor]
Operation = Callable[[Operands, str], list[Tensor]]
Changed = Callable[[Operands], Operands]


class Case(NamedTuple):
    """An operation on operands of one kind."""

    operation: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    arrangement: str
    special: bool


def _plain(k: Operands, impl: str) -> list[Tensor]:
    return [fl.step(k["x"], k["score"], **NUMBERS, **ADDRESS, impl=impl)]


def _in_place(k: Operands, impl: str) -> list[Tensor]:
    return [fl.step_(k["x"], k["score"], **NUMBERS, **ADDRESS, impl=impl)]


def _into(k: Operands, impl: str) -> list[Tensor]:
    return [fl.step(k["x"], k["score"], **NUMBERS, **ADDRESS, out=k["out"], impl=impl)]


def _itself(k: Operands, impl: str) -> list[Tensor]:
    return [fl.step(k["x"], k["x"], **NUMBERS, **ADDRESS, impl=impl)]


def _everything(k: Operands, impl: str) -> list[Tensor]:
    """Coefficients for each element, given noise, a mask, and scores of another dtype."""
    factors = {"a": k["score"].float(), "b": k["factor"], "c": 0.5}
    mask, known = k["factor"] > 0, k["known"]
    return [fl.step(k["x"], k["other"], **factors, noise=k["score"], mask=mask, known=known, impl=impl)]


def _normals(k: Operands, impl: str) -> list[Tensor]:
    number = torch.tensor(3)
    return [
        torch.ops.fastlangevin.random(k["x"], number, number, None, 9, 128, uniform, impl) for uniform in (False, True)
    ]


def _perturbed(k: Operands, impl: str) -> list[Tensor]:
    return list(fl.perturb(k["x"], torch.tensor([2.0, 0.5, 0.125]), **ADDRESS, impl=impl))


def _objective(k: Operands, impl: str) -> list[Tensor]:
    """The loss of each sample, and its gradient by the network's output."""
    h = k["score"].detach().requires_grad_()
    address = {"seed": 7, "step": 3, "sample_offset": 5}
    loss = fl.dsm_loss(lambda x, labels: h, k["x"], [2.0, 0.5], **address, reduction="none", impl=impl)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), h)]


def _sum_with_elu(k: Operands, impl: str) -> list[Tensor]:
    return [each for each in add_elu(k["x"], k["score"].to(k["x"].dtype), impl=impl) if each is not None]


def _channels(k: Operands) -> int:
    return k["x"].shape[1]


def _grouped(k: Operands, impl: str) -> list[Tensor]:
    weight = WEIGHT.repeat(-(-_channels(k) // 7))[: _channels(k)]
    return [group_norm(k["x"], 1, weight, weight.flip(0), activation=True, impl=impl)]


def _of_instances(k: Operands, impl: str) -> list[Tensor]:
    weight = WEIGHT.repeat(-(-_channels(k) // 7))[: _channels(k)]
    return [instance_norm(k["x"], weight, weight.flip(0), weight, activation=True, impl=impl)]


class Move(NamedTuple):
    """A move of several terms and draws.

    Attributes:
        terms: how many, of which the first is ``x``.
        draws: how many; none for given noise.
        table: whether the draws are in memory.
        over: the operand that is written, if none is new.
        region: whether a part is known.
        watched: whether faults are recorded, and samples with one kept.
    """

    terms: int
    draws: int
    table: bool = False
    over: str | None = None
    region: bool = False
    watched: bool = False


MOVES = {
    "move of 1 term": Move(1, 3, table=True),
    "move of 3 terms": Move(3, 2, watched=True),
    "move of 6 terms": Move(6, 4, region=True),
    "move over its state": Move(6, 5, table=True, over="x", region=True, watched=True),
    **{f"move over slot {place}": Move(6, 1 + place % 4, place == 3, f"s{place}") for place in range(1, 6)},
    "move over what is known": Move(5, 0, over="known", region=True),
}
NUMBER = 9  # of a watched step


def _shape_of_coefficient(operation: str, place: int, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Of a term, or of the noise as the last: every kind at every place in one of the moves; None for a number."""
    kind = (place + list(MOVES).index(operation)) % 6
    ones = (1,) * (len(shape) - 1)
    return (None, (), shape[:1], (*shape[:1], *ones), (1, *shape[1:]), shape)[kind]


def _move_operands(case: Case, computing: torch.dtype, special: bool) -> Operands:
    """The slots after the state, in every dtype unless one is written, the coefficients, and the draws."""
    move = MOVES[case.operation]
    made: Operands = {}
    for place in range(1, move.terms):
        dtype = FLOATS[(FLOATS.index(case.dtype) + place) % 4]
        own = f"s{place}" == move.over
        made[f"s{place}"] = values(case.shape, case.dtype if own else dtype, 10 + place, special)
    for place in range(move.terms + 1):
        shape = _shape_of_coefficient(case.operation, place, case.shape)
        if shape is not None:
            made[f"a{place}"] = values(shape, computing, 20 + place)
    made["weights"] = values((max(1, move.draws),), computing, 30)
    made["numbers"] = torch.arange(len(made["weights"])) * 2**29 + 5
    return made


def _moved(name: str) -> Operation:
    move = MOVES[name]

    def operation(k: Operands, impl: str) -> list[Tensor]:
        c, *a, b = (k.get(f"a{place}", 0.7 - 0.1 * place) for place in range(move.terms + 1))
        options: dict[str, Any] = {"mask": k["factor"] > 0, "known": k["known"]} if move.region else {}
        if not move.draws:
            options["noise"] = k["other"]
        else:
            pairs = list(zip(k["weights"].tolist(), k["numbers"].tolist(), strict=True))
            options |= {**ADDRESS, "draws": (k["weights"], k["numbers"]) if move.table else pairs}
        if move.watched:
            earlier = torch.arange(k["x"].shape[0]) % 3 == 1
            options |= {"number": NUMBER, "fault": torch.where(earlier, 3, NO_FAULT), "freeze": True}
        if move.over is not None:
            options["out"] = k[move.over]
        result = fl.step(k["x"], [k[f"s{i}"] for i in range(1, move.terms)], a=a, b=b, c=c, **options, impl=impl)
        return [result, options["fault"]] if move.watched else [result]

    return operation


OPERATIONS: dict[str, Operation] = {
    "step": _plain,
    "step_": _in_place,
    "step out=": _into,
    "step of itself": _itself,
    "step with everything": _everything,
    "random": _normals,
    "perturb": _perturbed,
    "dsm": _objective,
    "add_elu": _sum_with_elu,
    "group_norm": _grouped,
    "instance_norm": _of_instances,
    **{name: _moved(name) for name in MOVES},
}
WRITTEN = {"step out=": "out", "step_": "x"} | {name: move.over for name, move in MOVES.items() if move.over}
# Not the reference's: PyTorch's exp and sums have other bits where its loops are cut elsewhere. Kernels promise theirs
# for any arrangement that they take in one order, of which there are two: contiguous and channels_last.
NORMS = ("add_elu", "group_norm", "instance_norm")


def _takes(operation: str, shape: tuple[int, ...]) -> bool:
    elements = torch.Size(shape).numel()
    if operation == "dsm":
        return len(shape) > 1 and elements > 0
    if operation == "group_norm":
        return len(shape) > 1 and torch.Size(shape[1:]).numel() > 0
    if operation == "instance_norm":
        return len(shape) == 4 and shape[1] > 1
    return True


def cases() -> Iterator[Case]:
    """All of them, the cheap ones first."""
    for number, (shape, dtype, arrangement) in enumerate(itertools.product(SHAPES, FLOATS, ARRANGEMENTS)):
        for operation in OPERATIONS:
            if _takes(operation, shape):
                yield Case(operation, shape, dtype, arrangement, special=number % 3 == 0)


def plain(chosen: Sequence[Case]) -> list[Case]:
    """Those that the reference promises too."""
    return [case for case in chosen if case.operation not in NORMS]


def interpreted(chosen: Sequence[Case]) -> list[Case]:
    """Those that Triton's interpreter promises: it rounds subnormals to bfloat16 wrongly, those of known values too.

    3.7.1 makes -0 of -9.2e-41.
    """
    return [case for case in chosen if not (case.special and case.dtype == torch.bfloat16)]


def _operands(case: Case) -> tuple[Operands, Operands]:
    """Arranged, and the same values contiguous."""
    arrange = ARRANGEMENTS[case.arrangement]
    special = case.special and case.operation not in NORMS
    other = FLOATS[(FLOATS.index(case.dtype) + 1) % 4]
    computing = torch.float64 if case.dtype == torch.float64 else torch.float32
    made = {
        "x": values(case.shape, case.dtype, 1, special),
        "score": values(case.shape, case.dtype, 2, special),
        "other": values(case.shape, other, 3, special),
        "known": values(case.shape, case.dtype, 4, special),
        "factor": values(case.shape, computing, 5),
    }
    if case.operation in MOVES:
        made |= _move_operands(case, computing, special)
    arranged = {name: arrange(value) for name, value in made.items()}
    flat = {name: value.clone(memory_format=torch.contiguous_format) for name, value in arranged.items()}
    for operands in (arranged, flat):
        operands["out"] = torch.zeros_like(flat["x"])
    if case.arrangement != "expanded":
        arranged["out"] = arrange(arranged["out"])
    return arranged, flat


def _refused(k: Operands, written: str, operation: Operation, impl: str) -> bool:
    before = k[written].clone()
    try:
        operation(k, impl)
    except ValueError as error:
        return "share memory" in str(error) and same_bits(before, k[written])
    return False


def _around(view: Tensor, before: Tensor) -> bool:
    """Whether the memory of a written view is as it was, but for the view's own elements."""
    memory = torch.empty(0, dtype=view.dtype).set_(view.untyped_storage())
    touched = torch.zeros(memory.numel(), dtype=torch.bool)
    touched.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    return torch.equal(memory[~touched], before[~touched])


def _right(case: Case, impl: str, mistake: Changed | None) -> bool:
    operation = OPERATIONS[case.operation]
    arranged, flat = _operands(case)
    written = WRITTEN.get(case.operation)
    view = arranged[written] if written else None
    if (
        written
        and view is not None
        and any(stride == 0 and size > 1 for stride, size in zip(view.stride(), case.shape, strict=True))
    ):
        return _refused(arranged, written, operation, impl) if view.numel() else True
    same_order = case.operation in NORMS
    if same_order and not arranged["x"].is_contiguous() and arranged["x"].ndim == 4:
        flat = {name: value.contiguous(memory_format=_memory_format(arranged["x"])) for name, value in flat.items()}
    wanted = operation(flat, impl if same_order else "reference")
    before = None if view is None else torch.empty(0, dtype=view.dtype).set_(view.untyped_storage()).clone()
    if mistake is not None:
        arranged = mistake(arranged) | ({written: view} if written and view is not None else {})
    found = operation(arranged, impl)
    if view is not None and before is not None and not _around(view, before):
        return False
    return all(map(same_bits, found, wanted))


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def wrong(chosen: Sequence[Case], impl: str, mistake: Changed | None = None) -> list[Case]:
    """The cases whose bits are not those of contiguous operands.

    Args:
        chosen: cases.
        impl: the implementation.
        mistake: what is done to the operands that are read, before they are used: a control.
    """
    with np.errstate(all="ignore"):  # Triton's interpreter computes with NumPy
        return [case for case in chosen if not _right(case, impl, mistake)]


def without_strides(k: Operands) -> Operands:
    return {name: misread(value, strides=False) for name, value in k.items()}


def without_offset(k: Operands) -> Operands:
    return {name: misread(value, offset=False) for name, value in k.items()}


def of_another_term(k: Operands) -> Operands:
    """The first and the last coefficient that are tensors change places; the last may be that of the noise."""
    names = [name for name in k if re.fullmatch(r"a\d", name)]
    return k | dict(zip(names[:1] + names[-1:], (k[name] for name in names[-1:] + names[:1]), strict=True))


def of_another_draw(k: Operands) -> Operands:
    return k | ({"weights": k["weights"].flip(0)} if "weights" in k else {})


MISTAKES: dict[str, Changed] = {
    "ignores strides": without_strides,
    "ignores where memory begins": without_offset,
    "takes another term's coefficient": of_another_term,
    "takes another draw's weight": of_another_draw,
}


def main() -> int:
    options = parser(__doc__).parse_args()
    os.environ.setdefault("TRITON_INTERPRET", "1")
    torch.set_num_threads(1)
    every = list(cases())
    chosen = {"reference": plain(every), "cpp": every, "triton": interpreted(every[::23])}
    found = {impl: wrong(some, impl) for impl, some in chosen.items()}
    caught = {name: len(wrong(every[::7], "cpp", mistake)) for name, mistake in MISTAKES.items()}
    count = sum(map(len, chosen.values()))
    return finish(
        options.json,
        "any layout and size works",
        "python -m tests.long.layouts",
        f"{count} cases bitwise equal to contiguous operands, {sum(map(len, found.values()))} not",
        ", ".join(f"{name}: {number} of {len(every[::7])} cases caught" for name, number in caught.items()),
        not any(found.values()) and all(caught.values()),
        cases={impl: len(some) for impl, some in chosen.items()},
        by_operation=dict(Counter(case.operation for case in every)),
        wrong={impl: [str(case) for case in some] for impl, some in found.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
