"""Calls of the public operations, well formed or with defects, made by whoever picks among a few choices each time.

A call is made well formed first; then up to two of its arguments are replaced by something that is wrong whatever the
others are. So it is known of every call whether it must return or raise, and what the error must name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.long.arrangements import ARRANGEMENTS, values

__all__ = ["IMPLEMENTATIONS", "OPERATIONS", "Call", "generate"]

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


@dataclass
class Call:
    """A call of an operation.

    Attributes:
        operation: its name.
        arguments: by name.
        wrong: names of the arguments of which an error must name one; none for a call that must return.
    """

    operation: str
    arguments: Arguments
    wrong: list[str] = field(default_factory=list)


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


def _wrong(name: str, *choices: Any) -> list[Defect]:
    def constant(value: Any) -> Callable[[Arguments], Any]:
        return lambda k: value

    return [(name, constant(value)) for value in choices]


def wrong_address(step: str = "draw") -> list[Defect]:
    both = ("sample_ids", lambda k: [0] * batch_of(k) if k.get("sample_offset") else NOTHING)
    return [
        *_wrong("seed", -1, 2**64, 1.5, "0", True, torch.tensor(1.0), torch.tensor([1, 2, 3, 4, 5, 6, 7])),
        *_wrong(step, -1, 2**32, 0.5, None, "first", torch.tensor(1.0), torch.tensor(-1), torch.tensor([0])),
        *_wrong("sample_offset", -1, 2**56, 1.0, None, "0"),
        ("sample_ids", lambda k: [0] * (batch_of(k) + 1)),
        ("sample_ids", lambda k: torch.zeros(batch_of(k))),
        ("sample_ids", lambda k: [2**56] * batch_of(k) if batch_of(k) else NOTHING),
        ("sample_ids", lambda k: torch.full((batch_of(k),), -1) if batch_of(k) else NOTHING),
        ("sample_ids", lambda k: 7),
        ("generator", lambda k: torch.Generator() if k.get("seed") is not None else NOTHING),
        *_wrong("impl", "cuda", "", None, 3),
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
        *_wrong(name, math.nan, -math.inf, "0.1", True, [0.1], 1 + 2j, torch.tensor(1), {}),
        (name, lambda k: torch.tensor(0.5, requires_grad=True)),
        (name, lambda k: values((9, 9, 9, 9, 9, 9, 9), torch.float32, 1)),
        (name, lambda k: values((batch_of(k) + 2,), torch.float32, 1)),
    ]


def _state(pick: Pick, shapes: list[tuple[int, ...]], *, alone: bool = False) -> Tensor:
    shape = pick(shapes)
    made: Tensor = tensor(pick, shape, pick(FLOATS), special=pick((False, True)), alone=alone)
    return made


def update(pick: Pick, *, in_place: bool) -> Arguments:
    x = _state(pick, [(), *FLAT, *DEEP], alone=in_place)
    shape = tuple(x.shape)
    k: Arguments = {"x": x, "score": tensor(pick, shape, pick(FLOATS), special=pick((False, True)))}
    k |= {name: coefficient(pick, x) for name in "abc"}
    noise = pick(("drawn", "drawn", "drawn", "given", "none"))
    k |= address(pick, batch_of(k))
    if noise == "given":
        del k["seed"]
        k["noise"] = tensor(pick, shape, pick(FLOATS))
    elif noise == "none":
        k["b"] = None
    if pick(range(0, 4)) == 0:
        k["mask"] = values(shape, torch.float32, 6) > 0
        k["known"] = tensor(pick, shape, x.dtype)
    if pick(range(0, 4)) == 0:
        k["purpose"] = pick((0, 1, 128, 255))
    if pick(range(0, 6)) == 0:
        k["score"] = x
    if not in_place and pick(range(0, 4)) == 0:
        alone = x.is_contiguous()
        k["out"] = x if alone and pick((False, True)) else tensor(pick, shape, x.dtype, alone=True)
    return k


WRONG_UPDATE: list[Defect] = [
    *wrong_address(),
    *wrong_state("x", met=True),
    *wrong_state("score", met=True),
    *wrong_shape("score"),
    *(defect for name in "abc" for defect in wrong_coefficient(name)),
    *wrong_shape("noise"),
    ("noise", lambda k: k["x"].int()),
    *_wrong("purpose", 256, -1, 1.0, None, "LANGEVIN"),
    ("mask", lambda k: NOTHING if k.get("known") is None else None),
    ("mask", lambda k: (k["x"] > 0).float()),
    ("known", lambda k: k["x"].int()),
    *_wrong("fault", torch.zeros(99, dtype=torch.int64), torch.zeros(1), "fault"),
    ("freeze", lambda k: True if k.get("fault") is None else NOTHING),
]
WRONG_OUT: list[Defect] = [
    ("out", lambda k: k["x"].to(torch.float64 if k["x"].dtype == torch.float16 else torch.float16)),
    ("out", lambda k: k["x"].clone()[None]),
    ("out", lambda k: torch.zeros((), dtype=k["x"].dtype).expand(k["x"].shape) if k["x"].numel() > 1 else NOTHING),
    *_wrong("out", "here", 0),
]
WRONG_IN_PLACE: list[Defect] = [
    ("x", lambda k: torch.zeros((), dtype=k["x"].dtype).expand(k["x"].shape) if k["x"].numel() > 1 else NOTHING),
    ("x", lambda k: k["x"].detach().clone().requires_grad_() if k["x"].is_floating_point() else NOTHING),
]


def random_tensor(pick: Pick) -> Arguments:
    k: Arguments = {"shape": pick([(), *FLAT, *DEEP]), "dtype": pick(FLOATS)}
    k |= address(pick, batch_of(k))
    if pick((False, True)):
        k["purpose"] = pick((0, 128, 255))
    if pick((False, True)):
        k["shape"] = pick((list, torch.Size))(k["shape"])
    return k


WRONG_RANDOM: list[Defect] = [
    *wrong_address(),
    *_wrong("shape", -1, "23", None, (2, -3), (2, 1.5), (True, 2), ("2",)),
    *_wrong("dtype", torch.int64, torch.complex64, "float32", None, float),
    *_wrong("purpose", 256, -1, 1.0, None),
]

LADDERS = [[1.0], [2.0, 0.5], [3.0, 1.0, 0.25, 0.0625]]
WRONG_SIGMAS: list[Any] = [[], [0.5, 1.0], [1.0, 0.0], [math.nan], 3.0, "1", [[1.0]], None, [math.inf, 1.0], ["1"]]


def perturbation(pick: Pick) -> Arguments:
    x = _state(pick, [*FLAT, *DEEP])
    sigmas = pick(LADDERS)
    k: Arguments = {"x": x, "sigmas": torch.tensor(sigmas, dtype=pick(FLOATS))}
    k |= address(pick, batch_of(k))
    kind = pick(("drawn", "labels", "noise"))
    if kind != "drawn":
        k["labels"] = torch.arange(batch_of(k)) % len(sigmas)
    if kind == "noise":
        del k["seed"]
        k["noise"] = tensor(pick, tuple(x.shape), pick(FLOATS))
    return k


def wrong_labels(levels: Callable[[Arguments], int]) -> list[Defect]:
    return [
        ("labels", lambda k: torch.zeros(batch_of(k) + 1, dtype=torch.int64)),
        ("labels", lambda k: torch.zeros(batch_of(k))),
        ("labels", lambda k: torch.full((batch_of(k),), levels(k)) if batch_of(k) else NOTHING),
        ("labels", lambda k: torch.full((batch_of(k),), -1) if batch_of(k) else NOTHING),
        ("labels", lambda k: [0] * batch_of(k)),
    ]


WRONG_PERTURBATION: list[Defect] = [
    *wrong_address(),
    *wrong_state("x"),
    *wrong_labels(lambda k: k["sigmas"].numel()),
    *_wrong("sigmas", [1.0], torch.tensor(1.0), torch.zeros(0), torch.ones(2, 2), torch.ones(2).int(), None),
    *wrong_shape("noise"),
]


def objective(pick: Pick) -> Arguments:
    x = tensor(pick, pick([(1, 1), (3, 5), (2, 17), (2, 3, 4, 5)]), pick(FLOATS))
    k: Arguments = {"net": lambda x, labels: -0.5 * x, "x": x, "sigmas": pick(LADDERS)}
    k |= address(pick, batch_of(k), "step")
    k["reduction"] = pick(("mean", "sum", "none"))
    k["output"] = pick(("score", "scaled", "noise", "denoised"))
    if pick((False, True)):
        k["labels"] = torch.arange(batch_of(k)) % len(k["sigmas"])
    if pick((False, True)):
        k["anneal_power"] = pick((2, 2.0, 1.0, 0.0))
    return k


WRONG_OBJECTIVE: list[Defect] = [
    *wrong_address("step"),
    *wrong_state("x"),
    *wrong_labels(lambda k: len(k["sigmas"])),
    *_wrong("net", None, 3, lambda x, labels: None, lambda x, labels: x[:, :0], lambda x, labels: x.long()),
    *_wrong("sigmas", *WRONG_SIGMAS),
    *_wrong("reduction", "avg", None, 0),
    *_wrong("output", "x", None),
    *_wrong("anneal_power", "2", math.nan, 1000.0, True, None),
    *_wrong("weights", [1.0] * 9, [-1.0], [math.nan]),
]


def sum_with_elu(pick: Pick) -> Arguments:
    shape, dtype = pick([*FLAT, *DEEP]), pick(FLOATS)
    return {f"term {i}": tensor(pick, shape, dtype) for i in range(pick(range(1, 4)))}


def _other_term(k: Arguments) -> Any:
    return values((*k["term 0"].shape, 2), k["term 0"].dtype, 1)


WRONG_SUM: list[Defect] = [
    ("term 0", lambda k: k["term 0"].tolist()),
    ("term 0", lambda k: k["term 0"].int()),
    ("term 1", _other_term),
    ("term 1", lambda k: k["term 0"].to(torch.float16 if k["term 0"].dtype != torch.float16 else torch.float32)),
    ("term 1", lambda k: 1.0),
    *_wrong("impl", "cuda", "", None),
]


def normalised(pick: Pick) -> Arguments:
    shape = pick(((2, 4), (3, 4, 5), (2, 4, 3, 5), (1, 6, 1, 1), (0, 4, 2, 2)))
    x = tensor(pick, shape, pick(FLOATS))
    k: Arguments = {"x": x, "groups": pick((1, 2, shape[1])), "activation": pick((False, True))}
    for name in ("weight", "bias"):
        if pick((False, True)):
            k[name] = tensor(pick, shape[1:2], pick(FLOATS), alone=True)
    return k


WRONG_NORM: list[Defect] = [
    *wrong_state("x"),
    ("groups", lambda k: k["x"].shape[1] + 1),
    *_wrong("groups", 0, -1, 1.0, None, True),
    *(defect for name in ("weight", "bias") for defect in _wrong(name, torch.ones(99), torch.ones(4).int(), 1.0)),
    *_wrong("eps", -1.0, math.nan, math.inf, "0", None, True),
    *_wrong("impl", "cuda", "", None),
]


def chain(pick: Pick) -> Arguments:
    shape = pick(((1,), (2, 3), (3, 5), (2, 3, 4), (2, 3, 2, 2)))
    init = tensor(pick, shape, pick(FLOATS))
    k: Arguments = {"score": lambda x: -0.5 * x, "init": init, "steps": pick(range(0, 4))}
    k |= {key: value for key, value in address(pick, shape[0]).items() if key != "draw"}
    k[pick(("epsilon", "step_lr"))] = pick((0.1, 1e-3, 1))
    if pick((False, True)):
        k["temperature"] = pick((0, 0.5, 1.0))
    return k


WRONG_CHAIN: list[Defect] = [
    *(each for each in wrong_address() if each[0] != "draw"),
    *_wrong("score", None, 3),
    ("score", lambda k: (lambda x: x[..., :0]) if k["steps"] else NOTHING),
    ("score", lambda k: (lambda x: x.int()) if k["steps"] else NOTHING),
    *_wrong("init", None, [1.0], torch.ones(2, 3).int(), torch.ones(2, 3).cfloat()),
    *_wrong("steps", -1, 1.0, None, "3", 2**32 + 1, True),
    ("epsilon", lambda k: 0.1 if "step_lr" in k else -0.1),
    ("step_lr", lambda k: 0.1 if "epsilon" in k else math.nan),
    *_wrong("temperature", -1.0, math.nan, "1", None),
    *_wrong("clamp", (1.0, 0.0), 3, (math.nan, 1.0), (None, 1.0), ("0", "x"), (0.0, 1.0, 2.0)),
    *_wrong("order", "x", None),
    *_wrong("non_finite", "ignore", 3),
]


def annealed_chain(pick: Pick) -> Arguments:
    k = chain(pick)
    k |= {"score": lambda x, labels: -0.5 * x, "sigmas": pick(LADDERS)}
    k |= {"steps_per_level": pick(range(1, 3)), "denoise": pick((False, True))}
    # The largest level's step is 2304 times the last's, and float16 ends at 65504.
    k |= {name: 1e-3 for name in ("epsilon", "step_lr") if name in k}
    del k["steps"]
    return k


WRONG_ANNEALED: list[Defect] = [
    *(each for each in WRONG_CHAIN if each[0] not in ("steps", "score")),
    *_wrong("score", None, 3, lambda x, labels: x[..., :0], lambda x, labels: None, lambda x, labels: x.int()),
    *_wrong("sigmas", *WRONG_SIGMAS),
    *_wrong("steps_per_level", 0, -1, 1.0, None, "3", True),
    *_wrong("corrector", "x", None, 0),
]


def ladder(pick: Pick) -> Arguments:
    levels = pick(range(2, 10))
    return {"sigma_1": pick((2, 50.0, 1e30)), "sigma_L": pick((1, 0.01, 1e-30)), "levels": levels}


WRONG_LADDER: list[Defect] = [
    *_wrong("sigma_1", 0.0, -1.0, math.nan, math.inf, "1", None, True, 1e-31),
    *_wrong("sigma_L", 0.0, -1.0, math.nan, math.inf, "1", None, True, 1e31),
    *_wrong("levels", 0, -1, 1.5, None, "9", True, 10**7),
]

OPERATIONS: dict[str, tuple[Callable[[Pick], Arguments], list[Defect]]] = {
    "step": (lambda pick: update(pick, in_place=False), [*WRONG_UPDATE, *WRONG_OUT]),
    "step_": (lambda pick: update(pick, in_place=True), [*WRONG_UPDATE, *WRONG_IN_PLACE]),
    "randn": (random_tensor, WRONG_RANDOM),
    "rand": (random_tensor, WRONG_RANDOM),
    "perturb": (perturbation, WRONG_PERTURBATION),
    "dsm_loss": (objective, WRONG_OBJECTIVE),
    "add_elu": (sum_with_elu, WRONG_SUM),
    "group_norm": (normalised, WRONG_NORM),
    "langevin": (chain, WRONG_CHAIN),
    "annealed_langevin": (annealed_chain, WRONG_ANNEALED),
    "geometric_sigmas": (ladder, WRONG_LADDER),
    "linear_sigmas": (ladder, WRONG_LADDER),
}


def generate(
    pick: Pick, implementations: tuple[str, ...] = IMPLEMENTATIONS, operations: tuple[str, ...] = tuple(OPERATIONS)
) -> Call:
    """Any call; half of them have a defect, some two."""
    name = pick(operations)
    make, defects = OPERATIONS[name]
    arguments = make(pick)
    if not name.endswith("sigmas"):
        arguments["impl"] = pick(implementations)
    well_formed = dict(arguments)
    wrong: list[str] = []
    for _ in range(pick((0, 0, 0, 1, 1, 2))):
        argument, replace = pick(defects)
        value = replace(well_formed)
        if value is not NOTHING and argument not in wrong:
            arguments[argument] = value
            wrong.append(argument)
    return Call(name, arguments, wrong)
