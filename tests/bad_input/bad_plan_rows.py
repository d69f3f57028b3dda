"""Bad calls of ladders and of what chooses one."""

from __future__ import annotations

from typing import Any

import torch
from bad_call_row import INF, NAN, Row
from data_calls import quarters
from torch.utils.data import ChainDataset

LADDERS = ("geometric_sigmas", "linear_sigmas", "karras_sigmas")


def _refused(call: str, name: str, value: Any, error: type[Exception], *says: str) -> Row:
    return Row(f"{name} {value}", call, lambda k: {name: value}, error, (name, *says))


def _with(value: float) -> torch.Tensor:
    rows = quarters(6, 7)
    rows[3, 2] = value
    return rows


def _ends(call: str) -> list[Row]:
    return [
        _refused(call, "sigma_1", 0, ValueError, "above zero"),
        _refused(call, "sigma_1", "1", TypeError, "number", "'1'"),
        _refused(call, "sigma_1", INF, ValueError, "finite", "inf"),
        _refused(call, "sigma_L", NAN, ValueError, "finite", "nan"),
        _refused(call, "sigma_L", -0.1, ValueError, "above zero", "-0.1"),
        Row(
            "ascending sigmas",
            call,
            lambda k: {"sigma_1": 0.1, "sigma_L": 1.0},
            ValueError,
            ("sigma_1 must be larger than sigma_L", "0.1 and 1.0", "descends", "larger first"),
        ),
        Row("equal sigmas", call, lambda k: {"sigma_L": 1.0}, ValueError, ("sigma_1 must be larger", "1.0 and 1.0")),
    ]


def _levels(call: str) -> list[Row]:
    return [
        _refused(call, "levels", 0, ValueError, "from 1"),
        _refused(call, "levels", 3.0, TypeError, "integer"),
        _refused(call, "levels", 10**6 + 1, ValueError, "to 1000000"),
    ]


def _one_level(call: str) -> Row:
    return Row(
        "one level of two sigmas",
        call,
        lambda k: {"levels": 1},
        ValueError,
        ("levels=1", "equal", "1.0 and 0.1"),
        lambda k: {"levels": 1, "sigma_L": 1.0},
    )


def _dimension(call: str) -> list[Row]:
    return [
        _refused(call, "D", 0, ValueError, "from 1", "0"),
        _refused(call, "D", -3, ValueError, "from 1", "-3"),
        _refused(call, "D", 0.5, TypeError, "integer", "0.5"),
    ]


def _overlap(call: str, name: str) -> list[Row]:
    return [
        _refused(call, name, 0.0, ValueError, "above zero"),
        _refused(call, name, NAN, ValueError, "finite"),
        _refused(call, name, 1.0, ValueError, "below 0.99", "0.5 is usual"),
    ]


def _steps(call: str) -> list[Row]:
    return [
        _refused(call, "steps_per_level", 0, ValueError, "from 1"),
        _refused(call, "steps_per_level", 2.0, TypeError, "integer"),
    ]


def _ratio(call: str) -> list[Row]:
    return [
        Row(
            "ascending ratio", call, lambda k: {"ladder": 0.9}, ValueError, ("above 1", "sigma_i / sigma_(i+1)", "0.9")
        ),
        Row("equal levels", call, lambda k: {"ladder": 1}, ValueError, ("above 1", "1.0")),
        Row("ratio alone", call, lambda k: {"sigma_L": None}, ValueError, ("give sigma_L=", "1.1", "a whole ladder")),
        Row(
            "ladder and sigma_L",
            call,
            lambda k: {"ladder": [1.0, 0.5]},
            ValueError,
            ("sigma_L=0.1", "leave", "its own"),
            lambda k: {"ladder": [1.0, 0.5], "sigma_L": None},
        ),
        Row(
            "ascending ladder",
            call,
            lambda k: {"ladder": [0.5, 1.0], "sigma_L": None},
            ValueError,
            ("this ladder ascends", "sigmas.flip(0)"),
            lambda k: {"ladder": [1.0, 0.5], "sigma_L": None},
        ),
        Row(
            "one level",
            call,
            lambda k: {"ladder": [1.0], "sigma_L": None},
            ValueError,
            ("at least two noise levels", "[1.0]"),
            lambda k: {"ladder": [1.0, 0.5], "sigma_L": None},
        ),
        _refused(call, "sigma_L", -1.0, ValueError, "above zero"),
    ]


def _data(call: str) -> list[Row]:
    return [
        Row("a stream", call, lambda k: {"dataset": ChainDataset([])}, TypeError, ("dataset", "map-style")),
        Row("an array", call, lambda k: {"dataset": quarters(6, 7).numpy()}, TypeError, ("dataset", "ndarray")),
        Row("integers", call, lambda k: {"dataset": torch.ones(6, 7).int()}, TypeError, ("torch.int32", ".float()")),
        Row("numbers", call, lambda k: {"dataset": quarters(6)}, ValueError, ("(N, *)", "(6,)")),
        Row("no samples", call, lambda k: {"dataset": quarters(0, 7)}, ValueError, ("at least one sample", "(0, 7)")),
        Row("one sample", call, lambda k: {"dataset": quarters(1, 7)}, ValueError, ("at least two samples", "got 1")),
        Row("NaN", call, lambda k: {"dataset": _with(NAN)}, ValueError, ("sample 3", "1 of 7", "NaN")),
        Row("infinity", call, lambda k: {"dataset": list(_with(-INF))}, ValueError, ("sample 3 of list", "infinite")),
        _refused(call, "subsample", 1, ValueError, "from 2"),
        _refused(call, "subsample", 10.0, TypeError, "integer"),
        _refused(call, "seed", -1, ValueError, "from 0"),
        _refused(call, "memory", 0, ValueError, "from 1"),
        _refused(call, "memory", 100, ValueError, "two samples of 7 elements", "bytes, got 100"),
    ]


PLANS = [
    *(row for call in LADDERS for row in (*_ends(call), *_levels(call), _one_level(call))),
    _refused("karras_sigmas", "rho", 0, ValueError, "above zero"),
    _refused("karras_sigmas", "rho", -7.0, ValueError, "above zero", "-7.0"),
    _refused("karras_sigmas", "rho", NAN, ValueError, "finite"),
    _refused("karras_sigmas", "rho", "7", TypeError, "number", "'7'"),
    *_levels("continuous_ve_sigmas"),
    _refused("continuous_ve_sigmas", "sigma_min", 0.0, ValueError, "above zero"),
    _refused("continuous_ve_sigmas", "sigma_max", 0.05, ValueError, "larger than sigma_min", "0.05 and 0.1"),
    _refused("continuous_ve_sigmas", "t_end", 1, ValueError, "below 1"),
    _refused("continuous_ve_sigmas", "t_end", -1e-5, ValueError, "above zero"),
    _refused("continuous_ve_sigmas", "t_end", None, TypeError, "number", "None"),
    _refused("overlap", "gamma", 0.9, ValueError, "above 1", "sigma_i / sigma_(i+1)", "0.9"),
    _refused("overlap", "gamma", INF, ValueError, "finite"),
    *_dimension("overlap"),
    *_dimension("ratio_for_overlap"),
    *_overlap("ratio_for_overlap", "C"),
    _refused("ratio_for_overlap", "D", 4, ValueError, "D = 4", "fewer than 5", "levels="),
    *_ends("levels_for"),
    *_dimension("levels_for"),
    *_overlap("levels_for", "C"),
    *_ratio("variance_ratio"),
    *_steps("variance_ratio"),
    _refused("variance_ratio", "step_lr", 0.03, ValueError, "not stable", "epsilon = 0.06", "below 2 sigma_L^2 = 0.02"),
    Row("no step", "variance_ratio", lambda k: {"step_lr": None}, ValueError, ("exactly one", "epsilon", "neither")),
    Row("both steps", "variance_ratio", lambda k: {"epsilon": 1e-3}, ValueError, ("exactly one", "both")),
    *_ratio("step_size_for"),
    *_steps("step_size_for"),
    *_steps("final_variance_ratio"),
    Row(
        "unstable step",
        "final_variance_ratio",
        lambda k: {"epsilon": 1.0},
        ValueError,
        ("not stable", "step_lr = 0.5", "below 2 sigma_L^2 = 0.5"),
        lambda k: {"epsilon": 0.9},
    ),
    Row("one level", "final_variance_ratio", lambda k: {"sigmas": [1.0]}, ValueError, ("at least two noise levels",)),
    *_data("largest_distance"),
    *_data("plan"),
    _refused("plan", "budget", 0, ValueError, "from 1"),
    _refused("plan", "budget", 100.0, TypeError, "integer"),
    _refused("plan", "budget", 3, ValueError, "too small", "levels=2, which fits"),
    _refused("plan", "levels", 1, ValueError, "from 2"),
    _refused("plan", "shape", (7,), ValueError, "without data", "leave shape=(7,) out"),
    _refused("plan", "sigma_L", 0.0, ValueError, "above zero"),
    _refused("plan", "sigma_L", 10.0, ValueError, "largest distance", "smaller sigma_L="),
    *_overlap("plan", "overlap"),
    Row(
        "equal samples",
        "plan",
        lambda k: {"dataset": torch.ones(4, 7)},
        ValueError,
        ("largest distance", "0", "sigma_1="),
    ),
    Row(
        "few elements",
        "plan",
        lambda k: {"dataset": quarters(6, 4)},
        ValueError,
        ("D = 4", "fewer than 5", "levels="),
        lambda k: {"dataset": quarters(6, 4), "levels": 5},
    ),
    _refused("plan without data", "sigma_1", None, ValueError, "give the data", "shape="),
    _refused("plan without data", "sigma_1", NAN, ValueError, "finite"),
    _refused("plan without data", "sigma_1", 0.001, ValueError, "larger than sigma_L", "0.001 and 0.01"),
    _refused("plan without data", "shape", None, ValueError, "give the data", "sigma_1="),
    _refused("plan without data", "shape", 7, TypeError, "sequence of integers", "7"),
    _refused("plan without data", "shape", (7, 0), ValueError, "at least one element", "(7, 0)"),
    _refused("plan without data", "shape", (2**40,), ValueError, "room for"),
]
