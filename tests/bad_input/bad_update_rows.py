"""Bad calls of step and step_ with several scores and draws: what is wrong, where, what was given, and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bad_call_row import INF, META, NAN, Row
from torch import Tensor
from well_formed_calls import Arguments, numbers

from fastlangevin.ops import NO_FAULT

Call = Callable[[Arguments], Arguments]


def _scores(count: int, **changes: Any) -> Call:
    """So many scores, each with a coefficient; ``changes`` are of other arguments."""
    return lambda k: {"score": [k["score"]] * count, "a": [0.1] * count, **changes}


def _with(place: int, make: Callable[[Tensor], Any]) -> Call:
    """Three scores, one of which is made of a good one."""

    def change(k: Arguments) -> Arguments:
        scores: list[Any] = [numbers(2, 3), numbers(2, 3), numbers(2, 3)]
        scores[place] = make(scores[place])
        return {"score": scores, "a": [0.1, 0.2, 0.3]}

    return change


def _draws(draws: Any, **changes: Any) -> Call:
    return lambda k: {"draws": draws, **changes}


def _table(weights: Any, order: Any, **changes: Any) -> Call:
    return _draws((weights, order), **changes)


def _fault() -> Tensor:
    return torch.full((2,), NO_FAULT)


ONE, TWO = torch.tensor([1.0]), torch.tensor([1.0, 0.5])
FIRST, BOTH = torch.tensor([3]), torch.tensor([3, 5])
PAIRS = [(0.6, 0), (0.8, 1)]
SHAPED = "weights (N,) and numbers (N,) of one length, at least 1"

TERMS = [
    Row(
        "six scores",
        "step",
        _scores(6),
        ValueError,
        ("at most 6 terms", "the state and 5 scores", "got 6 scores", "make it in two updates"),
        _scores(5),
    ),
    Row("six scores in place", "step_", _scores(6), ValueError, ("at most 6 terms", "got 6 scores"), _scores(5)),
    Row(
        "a number for several scores",
        "step",
        lambda k: {"score": [k["score"]] * 2},
        ValueError,
        ("a must have one coefficient for each of the 2 scores", "got 0.1"),
        _scores(2),
    ),
    Row(
        "fewer coefficients than scores",
        "step",
        _scores(3, a=[0.1, 0.2]),
        ValueError,
        ("a must have one coefficient", "3 scores", "got 2 coefficients"),
        _scores(3),
    ),
    Row(
        "more coefficients than scores",
        "step_",
        _scores(1, a=[0.1, 0.2]),
        ValueError,
        ("a must have one coefficient", "1 scores", "got 2 coefficients"),
        _scores(1),
    ),
    Row(
        "a tensor for several scores",
        "step",
        lambda k: {"score": [k["score"]] * 2, "a": torch.tensor([0.1, 0.2])},
        ValueError,
        ("a must have one coefficient for each of the 2 scores", "tensor"),
        lambda k: {"score": [k["score"]] * 2, "a": list(torch.tensor([0.1, 0.2]))},
    ),
    Row(
        "several coefficients for a score",
        "step",
        lambda k: {"a": [0.1, 0.2]},
        TypeError,
        ("a must be a number or a tensor", "[0.1, 0.2]", "list"),
        _scores(2),
    ),
    Row("scores are text", "step", lambda k: {"score": "ab", "a": [0.1, 0.2]}, TypeError, ("score must be", "str")),
    Row(
        "scores are an iterator",
        "step",
        lambda k: {"score": iter([k["score"]]), "a": [0.1]},
        TypeError,
        ("score must be a torch.Tensor", "iterator"),
        _scores(1),
    ),
    Row(
        "one score of another shape",
        "step",
        _with(1, lambda score: score.T),
        ValueError,
        ("score[1] must have the state's shape", "(2, 3)", "got (3, 2)"),
        _scores(3),
    ),
    Row(
        "one score would broadcast",
        "step_",
        _with(2, lambda score: score[:1]),
        ValueError,
        ("score[2] must have the state's shape", "(2, 3)", "got (1, 3)"),
        _with(2, lambda score: score[:1].expand(2, 3)),
    ),
    Row(
        "one score on another device",
        "step",
        _with(0, lambda score: score.to(META)),
        ValueError,
        ("score[0] is on meta", "state is on cpu", ".to('cpu')"),
        _scores(3),
    ),
    Row(
        "one score of integers",
        "step",
        _with(1, lambda score: score.long()),
        TypeError,
        ("score[1] must be float32", "torch.int64", ".to(torch.float32)"),
        _with(1, lambda score: score.double()),
    ),
    Row(
        "one score is a list",
        "step_",
        _with(0, lambda score: score.tolist()),
        TypeError,
        ("score[0] must be a torch.Tensor", "list", "torch.as_tensor"),
        _scores(3),
    ),
    Row(
        "one coefficient is NaN",
        "step",
        _scores(2, a=[0.1, NAN]),
        ValueError,
        ("a[1] must be finite", "torch.float32", "nan"),
        _scores(2),
    ),
    Row(
        "one coefficient is text", "step", _scores(2, a=["1", 0.2]), TypeError, ("a[0] must be a number", "'1'", "str")
    ),
    Row(
        "one coefficient of another batch",
        "step",
        _scores(2, a=[0.1, numbers(3)]),
        ValueError,
        ("a[1] with one dimension is a value per sample", "2 entries", "got 3"),
        _scores(2, a=[0.1, numbers(2)]),
    ),
    Row(
        "one coefficient on another device",
        "step",
        _scores(2, a=[numbers(2).to(META), 0.1]),
        ValueError,
        ("a[0] is on meta", "state is on cpu", ".to('cpu')"),
        _scores(2, a=[numbers(2), 0.1]),
    ),
    Row(
        "one coefficient requires a gradient",
        "step",
        _scores(2, a=[0.1, numbers(2).requires_grad_()]),
        ValueError,
        ("a[1] requires a gradient", "not computed for coefficients", "a[1].detach()"),
        _scores(2, a=[0.1, numbers(2).requires_grad_().detach()]),
    ),
]

DRAWS = [
    Row(
        "draws are one number", "step", _draws(2), TypeError, ("draws must be 1 to 4 pairs", "weight, offset", "got 2")
    ),
    Row("draws are text", "step", _draws("ab"), TypeError, ("draws must be 1 to 4 pairs", "'ab'")),
    Row(
        "draws are a tensor", "step_", _draws(TWO), TypeError, ("draws must be", "a pair of tensors", "tensor([1.0000")
    ),
    Row(
        "no draws",
        "step",
        _draws([]),
        ValueError,
        ("draws must be 1 to 4 pairs", "got 0", "a pair of tensors"),
        _draws(PAIRS[:1]),
    ),
    Row(
        "five draws",
        "step",
        _draws([(0.1, i) for i in range(5)]),
        ValueError,
        ("draws must be 1 to 4 pairs", "got 5", "a pair of tensors (weights, numbers) takes any number"),
        _table(torch.full((5,), 0.1), torch.arange(5)),
    ),
    Row(
        "a draw without an offset",
        "step",
        _draws([0.6, 0.8]),
        TypeError,
        ("each of draws must be a pair (weight, offset)", "got 0.6"),
        _draws(PAIRS),
    ),
    Row("a draw of three", "step_", _draws([(1.0, 0, 1)]), TypeError, ("each of draws must be a pair", "(1.0, 0, 1)")),
    Row(
        "a weight is NaN",
        "step",
        _draws([(0.6, 0), (NAN, 1)]),
        ValueError,
        ("the weights of draws must be finite", "nan"),
        _draws(PAIRS),
    ),
    Row(
        "a weight is infinite",
        "step_",
        _draws([(-INF, 0)]),
        ValueError,
        ("the weights of draws must be finite", "-inf"),
    ),
    Row(
        "a weight beyond fp32",
        "step",
        _draws([(1e39, 0)]),
        ValueError,
        ("the weights of draws must be finite", "1e+39"),
        _draws([(1e38, 0)], b=1e-38),
    ),
    Row(
        "a weight is text", "step", _draws([("1", 0)]), TypeError, ("a weight of draws must be a finite number", "'1'")
    ),
    Row("a weight is a bool", "step", _draws([(True, 0)]), TypeError, ("a weight of draws must be", "True", "bool")),
    Row(
        "an offset is a float",
        "step",
        _draws([(1.0, 1.0)]),
        TypeError,
        ("an offset of draws must be an integer", "0 to 4294967295", "1.0"),
        _draws([(1.0, 1)]),
    ),
    Row(
        "an offset below zero",
        "step",
        _draws([(1.0, -1)], draw=7),
        ValueError,
        ("an offset of draws must be from 0", "-1"),
        _draws([(1.0, 0)], draw=7),
    ),
    Row(
        "an offset past the last draw",
        "step_",
        _draws([(1.0, 2)], draw=2**32 - 2),
        ValueError,
        ("an offset of draws must be from 0 to 1", "got 2"),
        _draws([(1.0, 1)], draw=2**32 - 2),
    ),
    Row(
        "a table on another device",
        "step",
        _table(TWO.to(META), BOTH.to(META)),
        ValueError,
        ("the weights of draws is on meta", "state is on cpu", ".to('cpu')"),
        _table(TWO, BOTH),
    ),
    Row(
        "numbers of a table on another device",
        "step",
        _table(TWO, BOTH.to(META)),
        ValueError,
        ("the numbers of draws is on meta", "state is on cpu", ".to('cpu')"),
        _table(TWO, BOTH),
    ),
    Row(
        "a table whose numbers are out of range",
        "step",
        _table(TWO, torch.tensor([0, 2**32])),
        ValueError,
        ("the numbers of draws must be from 0 to 4294967295", "got 4294967296"),
        _table(TWO, torch.tensor([0, 2**32 - 1])),
    ),
    Row(
        "a table with a number below zero",
        "step_",
        _table(TWO, torch.tensor([3, -1])),
        ValueError,
        ("the numbers of draws must be from 0 to 4294967295", "got -1"),
        _table(TWO, BOTH),
    ),
    Row(
        "a table whose numbers are int32",
        "step",
        _table(TWO, BOTH.int()),
        TypeError,
        ("the numbers of draws must be int64", "torch.int32", ".long()"),
        _table(TWO, BOTH),
    ),
    Row(
        "a table whose numbers are floats",
        "step",
        _table(TWO, BOTH.float()),
        TypeError,
        ("the numbers of draws must be int64", "torch.float32", ".long()"),
        _table(TWO, BOTH),
    ),
    Row(
        "a table whose weights are integers",
        "step",
        _table(BOTH, BOTH),
        TypeError,
        ("the weights of draws must be float32", "torch.int64", ".to(torch.float32)"),
        _table(TWO, BOTH),
    ),
    Row(
        "a table of unequal lengths",
        "step",
        _table(TWO, FIRST),
        ValueError,
        (SHAPED, "(2,)", "(1,)"),
        _table(ONE, FIRST),
    ),
    Row("an empty table", "step", _table(TWO[:0], BOTH[:0]), ValueError, (SHAPED, "(0,) and (0,)")),
    Row("a table of two dimensions", "step_", _table(TWO[None], BOTH[None]), ValueError, (SHAPED, "(1, 2) and (1, 2)")),
    Row(
        "a table of one number", "step", _table(TWO[0], BOTH[0]), ValueError, (SHAPED, "() and ()"), _table(ONE, FIRST)
    ),
    Row(
        "a table with a weight that is infinite",
        "step",
        _table(torch.tensor([1.0, INF]), BOTH),
        ValueError,
        ("the weights of draws must be finite in torch.float32", "[1.0, inf]"),
        _table(TWO, BOTH),
    ),
    Row(
        "a table with a weight beyond fp32",
        "step",
        _table(torch.tensor([1.0, 1e39], dtype=torch.float64), BOTH),
        ValueError,
        ("the weights of draws must be finite in torch.float32", "inf"),
        _table(TWO.double(), BOTH),
    ),
    Row(
        "a tensor beside a list",
        "step",
        _table(TWO, [3, 5]),
        TypeError,
        ("each of draws must be a pair (weight, offset)", "tensor([1.0000, 0.5000])"),
        _table(TWO, BOTH),
    ),
    Row(
        "a table whose weights require a gradient",
        "step",
        _table(TWO.clone().requires_grad_(), BOTH),
        ValueError,
        ("the weights of draws require a gradient", "not computed", ".detach()"),
        _table(TWO.clone().requires_grad_().detach(), BOTH),
    ),
]

BESIDE = [
    Row(
        "draws and noise",
        "step",
        lambda k: {"draws": PAIRS, "noise": k["score"], "seed": None},
        ValueError,
        ("noise= is the noise itself", "draws= says what it is drawn from", "give one of them"),
        lambda k: {"noise": k["score"], "seed": None},
    ),
    Row(
        "a table and noise",
        "step_",
        lambda k: {"draws": (TWO, BOTH), "noise": k["score"], "seed": None},
        ValueError,
        ("noise= is the noise itself", "draws=", "give one of them"),
        _table(TWO, BOTH),
    ),
    Row(
        "draws and a record without a number",
        "step",
        lambda k: {"draws": PAIRS, "fault": _fault()},
        ValueError,
        ("fault= and freeze= compare the number of the step", "not that of its draws", "give number= too"),
        lambda k: {"draws": PAIRS, "fault": _fault(), "number": 3},
    ),
    Row(
        "a table and a record without a number",
        "step_",
        lambda k: {"draws": (TWO, BOTH), "fault": _fault(), "freeze": True},
        ValueError,
        ("fault= and freeze= compare the number of the step", "give number= too", "count of steps"),
        lambda k: {"draws": (TWO, BOTH), "fault": _fault(), "freeze": True, "number": torch.tensor(3)},
    ),
    Row(
        "draws and freeze without a record",
        "step",
        _draws(PAIRS, freeze=True, number=3),
        ValueError,
        ("freeze=True", "fault=", "give fault= too"),
        lambda k: {"draws": PAIRS, "freeze": True, "number": 3, "fault": _fault()},
    ),
    Row(
        "number below zero",
        "step",
        lambda k: {"number": -1, "fault": _fault()},
        ValueError,
        ("number must be from 0 to 4294967295", "-1"),
        lambda k: {"number": 0, "fault": _fault()},
    ),
    Row(
        "number is a float",
        "step",
        lambda k: {"number": 1.5, "fault": _fault()},
        TypeError,
        ("number must be an integer", "1.5", "float"),
    ),
    Row(
        "number is a tensor of floats",
        "step_",
        lambda k: {"number": torch.tensor(1.0), "fault": _fault()},
        ValueError,
        ("number as a tensor must be int64 of shape ()", "torch.float32"),
        lambda k: {"number": torch.tensor(1), "fault": _fault()},
    ),
    Row(
        "an option that there is not",
        "step",
        lambda k: {"draw_offsets": PAIRS},
        TypeError,
        ("there is no option draw_offsets=", "seed=", "sample_ids="),
        _draws(PAIRS),
    ),
    Row("an option of the losses", "step_", lambda k: {"step": 3}, TypeError, ("there is no option step=", "seed=")),
]

UPDATES = [*TERMS, *DRAWS, *BESIDE]
