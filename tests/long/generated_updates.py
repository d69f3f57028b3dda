"""Updates: of one score or several, one draw or several, watched or not, well formed and with defects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastlangevin.ops import NO_FAULT
from tests.long.arrangements import ARRANGEMENTS, values
from tests.long.generated_arguments import (
    DEEP,
    FLAT,
    FLOATS,
    NOTHING,
    Arguments,
    Defect,
    Pick,
    address,
    batch_of,
    coefficient,
    constant,
    state,
    tensor,
    wrong_address,
    wrong_coefficient,
    wrong_shape,
    wrong_state,
)

__all__ = ["WRONG_IN_PLACE", "WRONG_OUT", "WRONG_UPDATE", "update"]

LAST = 2**32 - 1  # of draw numbers


def _score(pick: Pick, x: Tensor) -> Tensor:
    made: Tensor = tensor(pick, tuple(x.shape), pick(FLOATS), special=pick((False, True)))
    return x if pick(range(0, 6)) == 0 else made


def _draws(pick: Pick, draw: int | Tensor) -> Any:
    """Pairs of a weight and an offset, or tables of weights and numbers."""
    if pick((False, True)):
        last = min(5, LAST - int(draw))
        pairs = [
            (pick((1.0, 0.5, -2.5, 0, np.float32(0.3))), pick((0, last, np.int64(last // 2))))
            for _ in range(pick(range(1, 5)))
        ]
        return pick((list, tuple))(map(pick((list, tuple)), pairs))
    count = pick((1, 2, 5))
    numbers = torch.tensor([pick((0, 3, 3, 2**31, LAST)) for _ in range(count)])
    return pick((list, tuple))((tensor(pick, (count,), pick(FLOATS)), ARRANGEMENTS[pick(list(ARRANGEMENTS))](numbers)))


def _number(pick: Pick) -> int | Tensor:
    number = pick((0, 1, 3, LAST))
    return torch.tensor(number) if pick((False, True)) else number


def _outputs(k: Arguments) -> list[Tensor]:
    """What may be written of the operands: state and scores of its dtype, no two of whose elements share memory."""
    x, scores = k["x"], k["score"] if _is_several(k) else [k["score"]]
    return [
        each
        for each in (x, *scores)
        if each.dtype == x.dtype
        and not any(stride == 0 and size > 1 for stride, size in zip(each.stride(), each.shape, strict=True))
    ]


def _is_several(k: Arguments) -> bool:
    return not isinstance(k["score"], Tensor)


def update(pick: Pick, *, in_place: bool) -> Arguments:
    """Arguments of ``step`` or ``step_``."""
    x = state(pick, [(), *FLAT, *DEEP], alone=in_place)
    shape = tuple(x.shape)
    k: Arguments = {"x": x, "score": _score(pick, x)}
    k |= {name: coefficient(pick, x) for name in "abc"}
    if pick((False, True)):
        count = pick(range(0, 6))
        k["score"] = pick((list, tuple))(_score(pick, x) for _ in range(count))
        k["a"] = pick((list, tuple))(coefficient(pick, x) for _ in range(count))
    noise = pick(("drawn", "drawn", "drawn", "given", "none"))
    k |= address(pick, batch_of(k))
    if noise == "given":
        del k["seed"]
        k["noise"] = tensor(pick, shape, pick(FLOATS))
    elif pick((False, True)):
        k["draws"] = _draws(pick, k["draw"])
    if noise == "none":
        k["b"] = None
    if pick(range(0, 4)) == 0:
        k["mask"] = values(shape, torch.float32, 6) > 0
        k["known"] = tensor(pick, shape, x.dtype)
    if pick(range(0, 4)) == 0:
        k["purpose"] = pick((0, 1, 128, 255))
    if pick(range(0, 3)) == 0:
        k["fault"] = torch.tensor([pick((NO_FAULT, NO_FAULT, 0, 2)) for _ in range(batch_of(k))], dtype=torch.int64)
        k["freeze"] = pick((False, True))
    if pick((False, True)) or ("fault" in k and "draws" in k):
        k["number"] = _number(pick)
    if not in_place and pick(range(0, 3)) == 0:
        outputs = _outputs(k)
        k["out"] = pick(outputs) if outputs and pick((False, True)) else tensor(pick, shape, x.dtype, alone=True)
    return k


def _of(several: bool, defects: list[Defect]) -> list[Defect]:
    """Defects of calls with a sequence of scores alone, or with one score."""

    def limited(make: Callable[[Arguments], Any]) -> Callable[[Arguments], Any]:
        return lambda k: make(k) if _is_several(k) == several else NOTHING

    return [(name, limited(make)) for name, make in defects]


def _one(name: str, place: int, make: Callable[[Any], Any]) -> Defect:
    """A defect of one of a sequence."""

    def change(k: Arguments) -> Any:
        each = list(k[name])
        if not each:
            return NOTHING
        each[place] = make(each[place])
        return each

    return name, change


WRONG_SCORES: list[Defect] = [
    _one("score", 0, lambda score: score.to("meta")),
    _one("score", -1, lambda score: score.int()),
    _one("score", 0, lambda score: score.to(torch.complex64)),
    _one("score", -1, lambda score: score.tolist()),
    _one("score", 0, lambda score: None),
    _one("score", -1, lambda score: score[None]),
    _one("score", 0, lambda score: values((7, 1), torch.float32, 1)),
    ("score", lambda k: [k["x"]] * 6),
    ("score", lambda k: [*k["score"], k["x"]]),
    ("score", lambda k: iter(k["score"])),
    ("score", lambda k: dict(enumerate(k["score"]))),
    *constant("score", "score", None, 3),
]
WRONG_FACTORS: list[Defect] = [
    *(
        _one("a", place, lambda _, value=value: value)
        for place in (0, -1)
        for value in (math.nan, -math.inf, "0.1", True, None, [0.1], torch.tensor(1))
    ),
    _one("a", -1, lambda _: torch.tensor(0.5, requires_grad=True)),
    _one("a", 0, lambda _: values((9, 9, 9, 9, 9, 9, 9), torch.float32, 1)),
    ("a", lambda k: [*k["a"], 0.5]),
    ("a", lambda k: k["a"][1:] if k["a"] else NOTHING),
    ("a", lambda k: torch.ones(len(k["a"]))),
    *constant("a", 0.5, None, "0.5"),
]


def _table(weights: Any, numbers: Any) -> Callable[[Arguments], Any]:
    return lambda k: (weights, numbers)


FIRST, TWO = torch.tensor([3]), torch.tensor([1.0, 0.5])
WRONG_DRAWS: list[Defect] = [
    *constant("draws", 3, "draws", torch.ones(2), [], [(1.0, 0)] * 5, [1.0, 0], [(1.0,)], [(1.0, 0, 0)], {1.0: 0}),
    *constant("draws", [(math.nan, 0)], [(-math.inf, 0)], [("1", 0)], [(None, 0)], [(1e400, 0)], [(True, 0)]),
    *constant("draws", [(1.0, -1)], [(1.0, 2**32)], [(1.0, 0.5)], [(1.0, None)], [(0.5, 0), (1.0, True)]),
    ("draws", _table(TWO, FIRST)),
    ("draws", _table(TWO[:0], FIRST[:0])),
    ("draws", _table(TWO[None], torch.tensor([[0, 1]]))),
    ("draws", _table(TWO, torch.tensor([0, 1], dtype=torch.int32))),
    ("draws", _table(TWO, torch.tensor([0, -1]))),
    ("draws", _table(TWO, torch.tensor([2**32, 0]))),
    ("draws", _table(TWO, TWO)),
    ("draws", _table(TWO.long(), torch.tensor([0, 1]))),
    ("draws", _table(torch.tensor([math.nan]), FIRST)),
    ("draws", _table(torch.tensor([math.inf]), FIRST)),
    ("draws", _table(TWO[:1].clone().requires_grad_(), FIRST)),
    ("draws", _table(TWO[:1].to("meta"), FIRST)),
    ("draws", _table(TWO[:1], FIRST.to("meta"))),
    ("draws", lambda k: [(0.5, 0)] if k.get("noise") is not None else NOTHING),
    ("draws", lambda k: [(0.5, LAST - k["draw"] + 1)] if isinstance(k["draw"], int) else NOTHING),
]
WRONG_WATCH: list[Defect] = [
    *constant("fault", torch.zeros(99, dtype=torch.int64), torch.zeros(1), "fault"),
    ("fault", lambda k: torch.zeros(batch_of(k), dtype=torch.int32)),
    ("fault", lambda k: torch.zeros(2 * batch_of(k), dtype=torch.int64)[::2] if batch_of(k) > 1 else NOTHING),
    ("freeze", lambda k: True if k.get("fault") is None else NOTHING),
    ("number", lambda k: None if k.get("fault") is not None and k.get("draws") is not None else NOTHING),
    *constant("number", -1, 2**32, 0.5, "first", True, torch.tensor(1.0), torch.tensor(-1), torch.tensor([0])),
]


WRONG_UPDATE: list[Defect] = [
    *wrong_address(),
    *wrong_state("x", met=True),
    *_of(False, [*wrong_state("score", met=True), *wrong_shape("score"), *wrong_coefficient("a")]),
    *_of(True, [*WRONG_SCORES, *WRONG_FACTORS]),
    *(defect for name in "bc" for defect in wrong_coefficient(name)),
    *wrong_shape("noise"),
    ("noise", lambda k: k["x"].int()),
    *constant("purpose", 256, -1, 1.0, None, "LANGEVIN"),
    ("mask", lambda k: NOTHING if k.get("known") is None else None),
    ("mask", lambda k: (k["x"] > 0).float()),
    ("known", lambda k: k["x"].int()),
    *WRONG_DRAWS,
    *WRONG_WATCH,
]
WRONG_OUT: list[Defect] = [
    ("out", lambda k: k["x"].to(torch.float64 if k["x"].dtype == torch.float16 else torch.float16)),
    ("out", lambda k: k["x"].clone()[None]),
    ("out", lambda k: torch.zeros((), dtype=k["x"].dtype).expand(k["x"].shape) if k["x"].numel() > 1 else NOTHING),
    *constant("out", "here", 0),
]
WRONG_IN_PLACE: list[Defect] = [
    ("x", lambda k: torch.zeros((), dtype=k["x"].dtype).expand(k["x"].shape) if k["x"].numel() > 1 else NOTHING),
    ("x", lambda k: k["x"].detach().clone().requires_grad_() if k["x"].is_floating_point() else NOTHING),
]
