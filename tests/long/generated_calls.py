"""Calls of the public operations, well formed or with defects, made by whoever picks among a few choices each time.

A call is made well formed first; then up to two of its arguments are replaced by something that is wrong whatever the
others are. So it is known of every call whether it must return or raise, and what the error must name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.long.arrangements import values
from tests.long.generated_arguments import (
    DEEP,
    FLAT,
    FLOATS,
    IMPLEMENTATIONS,
    NOTHING,
    Arguments,
    Defect,
    Pick,
    address,
    batch_of,
    constant,
    state,
    tensor,
    wrong_address,
    wrong_shape,
    wrong_state,
)
from tests.long.generated_updates import WRONG_IN_PLACE, WRONG_OUT, WRONG_UPDATE, update

__all__ = ["OPERATIONS", "Call", "generate"]


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
    *constant("shape", -1, "23", None, (2, -3), (2, 1.5), (True, 2), ("2",)),
    *constant("dtype", torch.int64, torch.complex64, "float32", None, float),
    *constant("purpose", 256, -1, 1.0, None),
]

LADDERS = [[1.0], [2.0, 0.5], [3.0, 1.0, 0.25, 0.0625]]
WRONG_SIGMAS: list[Any] = [[], [0.5, 1.0], [1.0, 0.0], [math.nan], 3.0, "1", [[1.0]], None, [math.inf, 1.0], ["1"]]


def perturbation(pick: Pick) -> Arguments:
    x = state(pick, [*FLAT, *DEEP])
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
    *constant("sigmas", [1.0], torch.tensor(1.0), torch.zeros(0), torch.ones(2, 2), torch.ones(2).int(), None),
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
    *constant("net", None, 3, lambda x, labels: None, lambda x, labels: x[:, :0], lambda x, labels: x.long()),
    *constant("sigmas", *WRONG_SIGMAS),
    *constant("reduction", "avg", None, 0),
    *constant("output", "x", None),
    *constant("anneal_power", "2", math.nan, 1000.0, True, None),
    *constant("weights", [1.0] * 9, [-1.0], [math.nan]),
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
    *constant("impl", "cuda", "", None),
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
    *constant("groups", 0, -1, 1.0, None, True),
    *(defect for name in ("weight", "bias") for defect in constant(name, torch.ones(99), torch.ones(4).int(), 1.0)),
    *constant("eps", -1.0, math.nan, math.inf, "0", None, True),
    *constant("impl", "cuda", "", None),
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
    *constant("score", None, 3),
    ("score", lambda k: (lambda x: x[..., :0]) if k["steps"] else NOTHING),
    ("score", lambda k: (lambda x: x.int()) if k["steps"] else NOTHING),
    *constant("init", None, [1.0], torch.ones(2, 3).int(), torch.ones(2, 3).cfloat()),
    *constant("steps", -1, 1.0, None, "3", 2**32 + 1, True),
    ("epsilon", lambda k: 0.1 if "step_lr" in k else -0.1),
    ("step_lr", lambda k: 0.1 if "epsilon" in k else math.nan),
    *constant("temperature", -1.0, math.nan, "1", None),
    *constant("clamp", (1.0, 0.0), 3, (math.nan, 1.0), (None, 1.0), ("0", "x"), (0.0, 1.0, 2.0)),
    *constant("order", "x", None),
    *constant("non_finite", "ignore", 3),
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
    *constant("score", None, 3, lambda x, labels: x[..., :0], lambda x, labels: None, lambda x, labels: x.int()),
    *constant("sigmas", *WRONG_SIGMAS),
    *constant("steps_per_level", 0, -1, 1.0, None, "3", True),
    *constant("corrector", "x", None, 0),
]


def ladder(pick: Pick) -> Arguments:
    levels = pick(range(2, 10))
    return {"sigma_1": pick((2, 50.0, 1e30)), "sigma_L": pick((1, 0.01, 1e-30)), "levels": levels}


WRONG_LADDER: list[Defect] = [
    *constant("sigma_1", 0.0, -1.0, math.nan, math.inf, "1", None, True, 1e-31),
    *constant("sigma_L", 0.0, -1.0, math.nan, math.inf, "1", None, True, 1e31),
    *constant("levels", 0, -1, 1.5, None, "9", True, 10**7),
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
