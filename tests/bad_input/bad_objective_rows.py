"""Bad calls of the score matching objectives other than dsm_loss, and of their projections."""

from __future__ import annotations

import torch
from bad_call_row import INF, NAN, Row
from well_formed_calls import numbers

AT_DATA = ("esm_loss", "ism_loss", "ssm_loss", "single_dsm_loss")
AT_LEVELS = ("annealed_ssm_loss", "controlled_dsm_loss")
SEEDED = ("ssm_loss", "annealed_ssm_loss", "single_dsm_loss", "controlled_dsm_loss", "projection_vectors")
PROJECTING = ("ism_loss", "ssm_loss", "annealed_ssm_loss", "projection_vectors")


def _of_all(call: str) -> list[Row]:
    return [
        Row("x int", call, lambda k: {"x": k["x"].int()}, TypeError, ("x must be", "torch.int32", ".to(")),
        Row("x is a list", call, lambda k: {"x": [[1.0]]}, TypeError, ("x must be", "list")),
        Row("x without a batch", call, lambda k: {"x": numbers(3)}, ValueError, ("x must be a batch", "(3,)")),
        Row("x without elements", call, lambda k: {"x": torch.zeros(2, 0)}, ValueError, ("x must be", "(2, 0)")),
        Row("unknown reduction", call, lambda k: {"reduction": "avg"}, ValueError, ("reduction", "'avg'", "'mean'")),
    ]


def _of_score(call: str) -> list[Row]:
    return [
        Row("score is None", call, lambda k: {"score": None}, TypeError, ("score must be callable", "NoneType")),
        Row(
            "score of another shape",
            call,
            lambda k: {"score": lambda x: x[:, :1]},
            ValueError,
            ("score must return", "(2, 3)", "(2, 1)"),
        ),
        Row("score returns a tuple", call, lambda k: {"score": lambda x: (x,)}, ValueError, ("score", "tuple")),
        Row("score of integers", call, lambda k: {"score": lambda x: x.int()}, TypeError, ("score", "torch.int32")),
    ]


def _of_levels(call: str) -> list[Row]:
    return [
        Row("net is a number", call, lambda k: {"net": 3}, TypeError, ("net must be callable", "x, labels", "int")),
        Row(
            "net of another shape",
            call,
            lambda k: {"net": lambda x, i: x.sum(1)},
            ValueError,
            ("net must return", "(2, 3)", "(2,)"),
        ),
        Row("net returns None", call, lambda k: {"net": lambda x, i: None}, ValueError, ("net", "NoneType")),
        Row("sigma zero", call, lambda k: {"sigmas": [1.0, 0.0]}, ValueError, ("sigmas[1]", "above zero", "0.0")),
        Row("sigmas ascend", call, lambda k: {"sigmas": [0.5, 1.0]}, ValueError, ("sigmas", "flip(0)")),
        Row("no sigmas", call, lambda k: {"sigmas": []}, ValueError, ("sigmas", "at least one")),
        Row(
            "labels out of range",
            call,
            lambda k: {"labels": torch.tensor([0, 2])},
            ValueError,
            ("labels", "to 1", "got 2"),
            lambda k: {"labels": torch.tensor([0, 1])},
        ),
        Row(
            "labels float",
            call,
            lambda k: {"labels": torch.tensor([0.0, 1.0])},
            TypeError,
            ("labels", "int64", "torch.float32"),
            lambda k: {"labels": torch.tensor([0, 1])},
        ),
        Row(
            "one label for two",
            call,
            lambda k: {"labels": torch.tensor([0])},
            ValueError,
            ("labels", "(2,)", "(1,)"),
            lambda k: {"labels": torch.tensor([0, 0])},
        ),
    ]


def _of_address(call: str) -> list[Row]:
    return [
        Row("seed negative", call, lambda k: {"seed": -1}, ValueError, ("seed", "-1")),
        Row("two seeds", call, lambda k: {"generator": torch.Generator()}, ValueError, ("seed=", "generator=")),
        Row("step negative", call, lambda k: {"step": -1}, ValueError, ("step", "-1")),
        Row("step float", call, lambda k: {"step": 1.0}, TypeError, ("step", "1.0")),
        Row(
            "ids of another batch",
            call,
            lambda k: {"sample_ids": [0]},
            ValueError,
            ("sample_ids", "(2,)", "(1,)"),
            lambda k: {"sample_ids": [0, 5]},
        ),
        Row(
            "ids and an offset",
            call,
            lambda k: {"sample_ids": [0, 1], "sample_offset": 1},
            ValueError,
            ("sample_ids=", "sample_offset="),
            lambda k: {"sample_offset": 1},
        ),
    ]


def _of_projections(call: str) -> list[Row]:
    return [
        Row("unknown kind", call, lambda k: {"kind": "normal"}, ValueError, ("kind", "'normal'", "'rademacher'")),
        Row("no projections", call, lambda k: {"projections": 0}, ValueError, ("projections", "0", "from 1")),
        Row("projections float", call, lambda k: {"projections": 2.0}, TypeError, ("projections", "2.0")),
    ]


OBJECTIVES = [
    *(row for call in (*AT_DATA, *AT_LEVELS) for row in _of_all(call)),
    *(row for call in AT_DATA for row in _of_score(call)),
    *(row for call in AT_LEVELS for row in _of_levels(call)),
    *(row for call in SEEDED for row in _of_address(call)),
    *(row for call in PROJECTING for row in _of_projections(call)),
    *(
        Row("no products at once", call, lambda k: {"chunk_size": 0}, ValueError, ("chunk_size", "0", "from 1"))
        for call in ("ism_loss", "ssm_loss", "annealed_ssm_loss")
    ),
    Row("unknown trace", "ism_loss", lambda k: {"trace": "approx"}, ValueError, ("trace", "'approx'", "'hutchinson'")),
    Row("no true score", "esm_loss", lambda k: {"true_score": None}, TypeError, ("true_score", "callable", "NoneType")),
    Row(
        "true score of another shape",
        "esm_loss",
        lambda k: {"true_score": numbers(2, 4)},
        ValueError,
        ("true_score", "(2, 3)", "(2, 4)"),
        lambda k: {"true_score": numbers(2, 3)},
    ),
    Row(
        "true score returns None",
        "esm_loss",
        lambda k: {"true_score": lambda x: None},
        ValueError,
        ("true_score must return", "NoneType"),
    ),
    Row("sigma zero", "single_dsm_loss", lambda k: {"sigma": 0.0}, ValueError, ("sigma", "above zero", "0.0")),
    Row("sigma NaN", "single_dsm_loss", lambda k: {"sigma": NAN}, ValueError, ("sigma", "finite", "nan")),
    Row("sigma text", "single_dsm_loss", lambda k: {"sigma": "1"}, TypeError, ("sigma", "number", "'1'")),
    Row("below zero", "controlled_dsm_loss", lambda k: {"below": 0}, ValueError, ("below", "above zero", "0.0")),
    Row("below infinite", "controlled_dsm_loss", lambda k: {"below": INF}, ValueError, ("below", "finite", "inf")),
    Row("shape without elements", "projection_vectors", lambda k: {"shape": (2,)}, ValueError, ("shape", "(2,)")),
    Row("shape is a number", "projection_vectors", lambda k: {"shape": 2}, TypeError, ("shape", "2")),
    Row("int dtype", "projection_vectors", lambda k: {"dtype": torch.int32}, TypeError, ("dtype", "torch.int32")),
]
