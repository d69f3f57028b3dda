"""What generated calls are made of: tensors in any arrangement, addresses, coefficients, and what is wrong of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.long.arrangements import ARRANGEMENTS, values

__all__ = [
    "DEEP",
    "FLAT",
    "FLOATS",
    "IMPLEMENTATIONS",
    "NOTHING",
    "Arguments",
    "Defect",
    "Pick",
    "address",
    "batch_of",
    "coefficient",
    "constant",
    "state",
    "tensor",
    "wrong_address",
    "wrong_coefficient",
    "wrong_shape",
    "wrong_state",
]

Arguments = dict[str, Any]
Pick = Callable[[Sequence[Any]], Any]  # one of some
# Makes the wrong value of an argument from the well-formed ones; None where nothing would be wrong.
Defect = tuple[str, Callable[[Arguments], Any]]

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
FLAT = [(1,), (5,), (0,), (1, 1), (2, 3), (3, 5), (3, 0), (0, 4), (2, 17), (2, 129)]
DEEP = [(2, 3, 4), (2, 3, 4, 5), (1, 2, 1, 2, 3), (2, 1, 3, 1, 2, 2)]
# Without Triton's interpreter, which rounds subnormals to bfloat16 wrongly: 3.7.1 makes -2.3e-39 of -1.1e-40.
IMPLEMENTATIONS = ("reference", "cpp", "auto")
NOTHING = object()  # a defect that does not apply


def tensor(
    pick: Pick, shape: tuple[int, ...], dtype: torch.dtype, *, special: bool = False, alone: bool = False
) -> Any:
    """A tensor in any arrangement; ``alone``: no two elements share memory."""
    made = values(shape, dtype, pick(range(0, 100)), special)
    names = [name for name in ARRANGEMENTS if not (alone and name == "expanded")]
    return ARRANGEMENTS[pick(names)](made)


def batch_of(k: Arguments) -> int:
    shape = tuple(k["shape"]) if "shape" in k else tuple(k["init" if "init" in k else "x"].shape)
    return shape[0] if shape else 1


def address(pick: Pick, batch: int, step: str = "draw") -> Arguments:
    number = pick((0, 1, 3, 2**31, 2**32 - 1))
    seed = pick((0, 5, 2**63, 2**64 - 1, np.uint64(7), "scalar", "each"))
    if seed == "scalar":
        seed = torch.tensor(pick(range(-(2**62), 2**61)))
    elif isinstance(seed, str):
        seed = torch.arange(batch) * 2**60 - 3
    made: Arguments = {"seed": seed, step: torch.tensor(number) if pick((False, True)) else number}
    ids = pick((None, None, "offset", "list", "tensor"))
    if ids == "offset":
        made["sample_offset"] = pick((1, 2**40, 2**56 - 8))
    elif ids is not None:
        numbers = [(7 * i + 2**33) % 2**56 for i in range(batch)]
        made["sample_ids"] = numbers if ids == "list" else torch.tensor(numbers, dtype=torch.int64)
    return made


def constant(name: str, *choices: Any) -> list[Defect]:
    """An argument replaced by each of some values, whatever the others are."""

    def always(value: Any) -> Callable[[Arguments], Any]:
        return lambda k: value

    return [(name, always(value)) for value in choices]


def wrong_address(step: str = "draw") -> list[Defect]:
    both = ("sample_ids", lambda k: [0] * batch_of(k) if k.get("sample_offset") else NOTHING)
    return [
        *constant("seed", -1, 2**64, 1.5, "0", True, torch.tensor(1.0), torch.tensor([1, 2, 3, 4, 5, 6, 7])),
        *constant(step, -1, 2**32, 0.5, None, "first", torch.tensor(1.0), torch.tensor(-1), torch.tensor([0])),
        *constant("sample_offset", -1, 2**56, 1.0, None, "0"),
        ("sample_ids", lambda k: [0] * (batch_of(k) + 1)),
        ("sample_ids", lambda k: torch.zeros(batch_of(k))),
        ("sample_ids", lambda k: [2**56] * batch_of(k) if batch_of(k) else NOTHING),
        ("sample_ids", lambda k: torch.full((batch_of(k),), -1) if batch_of(k) else NOTHING),
        ("sample_ids", lambda k: 7),
        ("generator", lambda k: torch.Generator() if k.get("seed") is not None else NOTHING),
        *constant("impl", "cuda", "", None, 3),
        both,
    ]


def wrong_state(name: str, *, met: bool = False) -> list[Defect]:
    """``met``: other tensors must be where this one is."""
    elsewhere: list[Defect] = [(name, lambda k: k[name].to("meta"))] if met else []
    return [
        *elsewhere,
        (name, lambda k: k[name].int()),
        (name, lambda k: k[name].to(torch.complex64)),
        (name, lambda k: k[name].tolist()),
        (name, lambda k: None),
        (name, lambda k: k[name].to_sparse() if k[name].ndim else NOTHING),
    ]


def wrong_shape(name: str) -> list[Defect]:
    return [
        (name, lambda k: values((*k["x"].shape, 2), torch.float32, 1)),
        (name, lambda k: values((7, 1), torch.float32, 1)),
    ]


def coefficient(pick: Pick, x: Tensor) -> Any:
    kind = pick(("number", "number", "integer", "array", "scalar", "samples", "elements", "broadcast"))
    number = pick((0.0, 1.0, -0.3, 1e-3, 2.5))
    shape = tuple(x.shape)
    if kind == "number":
        return number
    if kind == "integer":
        return pick((0, 1, -2))
    if kind == "array":
        return np.float32(number)
    if kind == "samples" and not shape:
        return torch.tensor([number])
    if kind == "scalar" or not shape:
        return torch.tensor(number, dtype=pick(FLOATS))
    if kind == "samples":
        return values(shape[:1], torch.float64, 3)
    if kind == "elements":
        return tensor(pick, shape, torch.float32)
    return values((1,) * len(shape), torch.float32, 4)


def wrong_coefficient(name: str) -> list[Defect]:
    return [
        *constant(name, math.nan, -math.inf, "0.1", True, [0.1], 1 + 2j, torch.tensor(1), {}),
        (name, lambda k: torch.tensor(0.5, requires_grad=True)),
        (name, lambda k: values((9, 9, 9, 9, 9, 9, 9), torch.float32, 1)),
        (name, lambda k: values((batch_of(k) + 2,), torch.float32, 1)),
    ]


def state(pick: Pick, shapes: list[tuple[int, ...]], *, alone: bool = False) -> Tensor:
    shape = pick(shapes)
    made: Tensor = tensor(pick, shape, pick(FLOATS), special=pick((False, True)), alone=alone)
    return made
