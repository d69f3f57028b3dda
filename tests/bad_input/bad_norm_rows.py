"""Bad calls of the fused norms."""

from __future__ import annotations

import torch
from bad_call_row import INF, NAN, Row
from well_formed_calls import numbers

NORMS = [
    Row("x int", "group_norm", lambda k: {"x": k["x"].int()}, TypeError, ("x must be", "torch.int32", ".to(torch.")),
    Row("x is a list", "group_norm", lambda k: {"x": [[1.0]]}, TypeError, ("x must be", "list")),
    Row("x of one dimension", "group_norm", lambda k: {"x": numbers(4)}, ValueError, ("x must be", "(B, C, ...)")),
    Row("no pixels", "group_norm", lambda k: {"x": torch.zeros(2, 4, 0)}, ValueError, ("x must be", "(2, 4, 0)")),
    Row("no channels", "group_norm", lambda k: {"x": torch.zeros(2, 0, 3)}, ValueError, ("x must be", "(2, 0, 3)")),
    Row("no groups", "group_norm", lambda k: {"groups": 0}, ValueError, ("groups", "divisor of 4", "got 0")),
    Row("groups that do not divide", "group_norm", lambda k: {"groups": 3}, ValueError, ("groups", "divisor", "got 3")),
    Row("more groups than channels", "group_norm", lambda k: {"groups": 8}, ValueError, ("groups", "divisor", "got 8")),
    Row("groups negative", "group_norm", lambda k: {"groups": -2}, ValueError, ("groups", "divisor", "got -2")),
    Row("groups float", "group_norm", lambda k: {"groups": 2.0}, TypeError, ("groups", "integer", "2.0")),
    Row("groups bool", "group_norm", lambda k: {"groups": True}, TypeError, ("groups", "integer", "True")),
    Row(
        "weight for each group",
        "group_norm",
        lambda k: {"weight": numbers(2)},
        ValueError,
        ("weight", "(4,)", "(2,)"),
        lambda k: {"weight": None},
    ),
    Row(
        "bias for each sample", "group_norm", lambda k: {"bias": numbers(2, 4)}, ValueError, ("bias", "(4,)", "(2, 4)")
    ),
    Row("weight is a number", "group_norm", lambda k: {"weight": 1.0}, TypeError, ("weight", "Tensor", "float")),
    Row("bias int", "group_norm", lambda k: {"bias": torch.zeros(4).int()}, TypeError, ("bias", "torch.int32")),
    Row(
        "weight on another device",
        "group_norm",
        lambda k: {"weight": torch.ones(4, device="meta")},
        ValueError,
        ("weight is on meta", ".to('cpu')"),
    ),
    Row("eps negative", "group_norm", lambda k: {"eps": -1e-5}, ValueError, ("eps", "not negative", "-1e-05")),
    Row("eps NaN", "group_norm", lambda k: {"eps": NAN}, ValueError, ("eps", "finite", "nan")),
    Row("eps infinite", "group_norm", lambda k: {"eps": INF}, ValueError, ("eps", "finite", "inf")),
    Row(
        "eps text",
        "group_norm",
        lambda k: {"eps": "1e-5"},
        TypeError,
        ("eps", "number", "'1e-5'"),
        lambda k: {"eps": 0},
    ),
    Row("unknown impl", "group_norm", lambda k: {"impl": "cuda"}, ValueError, ("impl", "'cuda'", "reference")),
]
