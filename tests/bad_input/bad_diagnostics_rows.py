"""Bad calls of the diagnostics: their trajectories, lags, levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from bad_call_row import NAN, Row
from well_formed_calls import annealed, frames

import fastlangevin as fl


def _result(**options: Any) -> fl.SamplingResult:
    """A run of two levels of 8 updates each, with every state."""
    return fl.annealed_langevin(
        **{**annealed(Path()), "steps_per_level": 8, "trajectory": 1, **options}, full_output=True
    )


def _trajectories() -> list[Row]:
    """What is no trajectory is refused alike by everything that takes one."""
    calls = ("split_rhat", "ess", "mcse", "autocorrelation", "integrated_autocorrelation_time", "to_arviz", "picture")
    rows = []
    for call in (*calls, "by_level"):
        rows += [
            Row(
                "a list",
                call,
                lambda k: {"trajectory": [[0.0]]},
                TypeError,
                ("trajectory must be", "list", "torch.as_tensor"),
            ),
            Row(
                "of integers",
                call,
                lambda k: {"trajectory": k["trajectory"].long()},
                TypeError,
                ("trajectory", "torch.int64", ".to(torch.float32)"),
            ),
            Row(
                "three frames",
                call,
                lambda k: {"trajectory": frames(3, 2, 3)},
                ValueError,
                ("at least 4 frames", "got 3", "(3, 2, 3)", "trajectory=k"),
            ),
            Row(
                "one dimension",
                call,
                lambda k: {"trajectory": frames(20)},
                ValueError,
                ("trajectory must be (F, B, ...)", "(20,)", "trajectory[:, None]"),
                lambda k: {"trajectory": frames(20)[:, None]},
            ),
            Row("no chain", call, lambda k: {"trajectory": torch.zeros(9, 0, 3)}, ValueError, ("chain", "(9, 0, 3)")),
            Row(
                "no element", call, lambda k: {"trajectory": torch.zeros(9, 2, 0)}, ValueError, ("element", "(9, 2, 0)")
            ),
            Row(
                "not kept",
                call,
                lambda k: {"trajectory": None},
                TypeError,
                ("trajectory is None", "trajectory=k, full_output=True"),
            ),
        ]
    rows += [
        Row(
            "a result",
            call,
            lambda k: {"trajectory": _result()},
            TypeError,
            ("trajectory", "SamplingResult", "pass its .trajectory"),
            lambda k: {"trajectory": _result().trajectory},
        )
        for call in calls
    ]
    return rows


DIAGNOSTICS = [
    *_trajectories(),
    Row("one of dims", "split_rhat", lambda k: {"dims": (0,)}, ValueError, ("dims", "(frame, chain)", "(0,)")),
    Row("three dims", "ess", lambda k: {"dims": (0, 1, 2)}, ValueError, ("dims", "two", "(0, 1, 2)")),
    Row("dims a number", "mcse", lambda k: {"dims": 1}, ValueError, ("dims", "(0, 1)", "got 1")),
    Row("dims alike", "split_rhat", lambda k: {"dims": (1, -2)}, ValueError, ("dims", "different", "(1, -2)")),
    Row("dims past the last", "ess", lambda k: {"dims": (0, 3)}, ValueError, ("dims", "from -3 to 2", "got 3")),
    Row("dims float", "autocorrelation", lambda k: {"dims": (0, 1.0)}, TypeError, ("dims", "integer", "1.0")),
    Row(
        "dims that leave three frames",
        "integrated_autocorrelation_time",
        lambda k: {"dims": (2, 0)},
        ValueError,
        ("at least 4 frames", "got 3", "(8, 2, 3)"),
        lambda k: {"dims": (0, 2)},
    ),
    Row("unknown kind", "ess", lambda k: {"kind": "median"}, ValueError, ("kind", "bulk, tail, mean", "'median'")),
    Row("kind None", "ess", lambda k: {"kind": None}, ValueError, ("kind", "bulk, tail, mean", "None")),
    Row("unknown kind", "mcse", lambda k: {"kind": "bulk"}, ValueError, ("kind", "mean, sd", "'bulk'")),
    Row("lag of the frames", "autocorrelation", lambda k: {"max_lag": 8}, ValueError, ("max_lag", "from 0 to 7", "8")),
    Row("lag negative", "autocorrelation", lambda k: {"max_lag": -1}, ValueError, ("max_lag", "from 0 to 7", "-1")),
    Row("lag float", "autocorrelation", lambda k: {"max_lag": 2.0}, TypeError, ("max_lag", "integer", "2.0")),
    Row(
        "unknown center",
        "autocorrelation",
        lambda k: {"center": "all"},
        ValueError,
        ("center", "chain, pooled", "'all'"),
    ),
    Row(
        "no steps",
        "by_level",
        lambda k: {"steps_per_level": None},
        ValueError,
        ("steps_per_level must be given", "SamplingResult"),
    ),
    Row("steps zero", "by_level", lambda k: {"steps_per_level": 0}, ValueError, ("steps_per_level", "from 1", "0")),
    Row("every zero", "by_level", lambda k: {"every": 0}, ValueError, ("every", "from 1", "0")),
    Row("every float", "by_level", lambda k: {"every": 1.0}, TypeError, ("every", "integer", "1.0")),
    Row("warmup whole", "by_level", lambda k: {"warmup": 1.0}, ValueError, ("warmup", "from 0 to below 1", "1.0")),
    Row("warmup negative", "by_level", lambda k: {"warmup": -0.5}, ValueError, ("warmup", "from 0 to below 1", "-0.5")),
    Row("warmup NaN", "by_level", lambda k: {"warmup": NAN}, ValueError, ("warmup", "from 0 to below 1", "nan")),
    Row("warmup text", "by_level", lambda k: {"warmup": "half"}, TypeError, ("warmup", "number", "'half'")),
    Row(
        "warmup that leaves three frames",
        "by_level",
        lambda k: {"warmup": 0.5},
        ValueError,
        ("level 0 has 3 frames", "needs 4", "first 3", "warmup="),
        lambda k: {"warmup": 0.3},
    ),
    Row(
        "levels of two frames",
        "by_level",
        lambda k: {"every": 3},
        ValueError,
        ("level 0 has 2 frames", "every 3 updates", "trajectory="),
        lambda k: {"every": 3, "steps_per_level": 18},
    ),
    Row(
        "a ladder of one level",
        "by_level",
        lambda k: {"sigmas": [1.0]},
        ValueError,
        ("sigmas has 1 levels", "goes through 2", "steps_per_level=6"),
        lambda k: {"sigmas": [1.0, 0.5]},
    ),
    Row(
        "a ladder upside down",
        "by_level",
        lambda k: {"sigmas": [0.5, 1.0]},
        ValueError,
        ("sigmas", "largest first"),
        lambda k: {"sigmas": [1.0, 0.5]},
    ),
    Row(
        "a result without frames",
        "by_level",
        lambda k: {"trajectory": _result(trajectory=0), "steps_per_level": None},
        TypeError,
        ("trajectory is None", "trajectory=k, full_output=True"),
        lambda k: {"trajectory": _result(), "steps_per_level": None},
    ),
    Row(
        "a result kept otherwise",
        "by_level",
        lambda k: {"trajectory": _result(trajectory=2), "steps_per_level": None},
        ValueError,
        ("every=1 does not fit", "16 updates", "17 frames", "has 9"),
        lambda k: {"trajectory": _result(trajectory=2), "steps_per_level": None, "every": 2},
    ),
    Row(
        "steps of another run",
        "by_level",
        lambda k: {"trajectory": _result()},
        ValueError,
        ("steps_per_level=6", "sampled with 8", "leave it out"),
        lambda k: {"trajectory": _result(), "steps_per_level": 8},
    ),
    Row(
        "ladder of another run",
        "by_level",
        lambda k: {"trajectory": _result(), "steps_per_level": 8, "sigmas": [1.0, 0.25]},
        ValueError,
        ("sigmas is [1.0, 0.25]", "sampled with [1.0, 0.5]", "leave it out"),
        lambda k: {"trajectory": _result(), "steps_per_level": 8, "sigmas": [1.0, 0.5]},
    ),
    Row("name a number", "to_arviz", lambda k: {"name": 1}, TypeError, ("name", "'x'", "1")),
    Row("name empty", "to_arviz", lambda k: {"name": ""}, TypeError, ("name", "'x'", "''")),
    Row("element past the last", "picture", lambda k: {"elements": (0, 3)}, ValueError, ("elements", "0 to 2", "3")),
    Row("no elements", "picture", lambda k: {"elements": ()}, ValueError, ("elements", "(0, 10)", "()")),
    Row("elements a number", "picture", lambda k: {"elements": 2}, ValueError, ("elements", "sequence", "2")),
    Row("no chains", "picture", lambda k: {"chains": 0}, ValueError, ("chains", "from 1", "0")),
    Row("lag of the frames", "picture", lambda k: {"max_lag": 8}, ValueError, ("max_lag", "from 1 to 7", "8")),
    Row(
        "folder missing",
        "picture",
        lambda k: {"path": k["path"].parent / "missing" / "chains.png"},
        ValueError,
        ("cannot write", "missing", "does not exist"),
    ),
]
