"""Bad calls of Gaussian mixtures: what is no mixture, and states, levels and numbers that do not fit one."""

from __future__ import annotations

from typing import Any

import torch
from bad_call_row import INF, NAN, Row
from well_formed_calls import Arguments


def _mixture(name: str, error: type[Exception], *says: str, good: Arguments | None = None, **bad: Any) -> Row:
    mended: Arguments = good or {}
    return Row(name, "GaussianMixture", lambda k: bad, error, says, lambda k: mended)


def _of(call: str, argument: str, value: Any, error: type[Exception], *says: str, good: Any = None) -> Row:
    mended: Arguments = {} if good is None else {argument: good}
    name = f"{argument} {(value.dtype, *value.shape) if isinstance(value, torch.Tensor) else value!r}"
    return Row(name, call, lambda k: {argument: value}, error, (argument, *says), lambda k: mended)


STATES = ("GaussianMixture.score", "GaussianMixture.log_prob")

MIXTURES = [
    _mixture("negative weight", ValueError, "weights", "above zero", "-0.25", weights=[-0.25, 1.25]),
    _mixture("weight zero", ValueError, "weights", "leave out", weights=[0.0, 1.0]),
    _mixture("weights of sum 2", ValueError, "weights", "sum to 1", "2.0", "divide", weights=[1.0, 1.0]),
    _mixture("NaN weight", ValueError, "weights", "finite", "nan", weights=[NAN, 1.0]),
    _mixture("nested weights", ValueError, "weights", "(K,)", "(1, 2)", weights=[[0.25, 0.75]]),
    _mixture("weights of text", TypeError, "weights", "numbers", "'half'", weights="half"),
    _mixture("257 components", ValueError, "weights", "from 1 to 256", "(257,)", weights=torch.full((257,), 1 / 257)),
    _mixture("no component", ValueError, "weights", "from 1 to 256", "(0,)", weights=[]),
    _mixture("a mean too few", ValueError, "means", "(2, D)", "(1, 2)", means=[[0.0, 0.0]]),
    _mixture("flat means", ValueError, "means", "(2, D)", "(2,)", means=[0.0, 1.0], good={"means": [[0.0], [1.0]]}),
    _mixture("infinite mean", ValueError, "means", "finite", "inf", means=[[INF, 0.0], [1.0, 0.0]]),
    _mixture(
        "65 elements",
        ValueError,
        "means",
        "from 1 to 64",
        "65",
        means=torch.zeros(2, 65),
        good={"means": torch.zeros(2, 64)},
    ),
    _mixture("no elements", ValueError, "means", "from 1 to 64", "0", means=torch.zeros(2, 0)),
    _mixture("variance zero", ValueError, "variances", "above zero", "0.0", variances=[0.0, 1.0]),
    _mixture(
        "negative variance", ValueError, "variances", "above zero", "-1.0", variances=-1.0, good={"variances": 1.0}
    ),
    _mixture("NaN variance", ValueError, "variances", "finite", "nan", variances=[NAN, 1.0]),
    _mixture(
        "a covariance matrix",
        ValueError,
        "variances",
        "(2,)",
        "(2, 2)",
        "(2, 2, 2)",
        variances=torch.eye(2).expand(2, 2, 2),
        good={"variances": torch.ones(2, 2)},
    ),
    *(_of(call, "x", torch.zeros(3, 3), ValueError, "2 elements", "(3, 3)", good=torch.zeros(3, 2)) for call in STATES),
    *(_of(call, "x", torch.zeros(2), ValueError, "(B, ...)", "(2,)", good=torch.zeros(1, 2)) for call in STATES),
    *(_of(call, "x", [[0.0, 0.0]], TypeError, "torch.Tensor", "list") for call in STATES),
    *(_of(call, "sigma", -0.5, ValueError, "not be negative", "-0.5", good=0.0) for call in STATES),
    *(_of(call, "sigma", NAN, ValueError, "finite", "nan") for call in STATES),
    *(_of(call, "sigma", torch.ones(2), ValueError, "(3,)", "one for each", good=torch.ones(3)) for call in STATES),
    _of("GaussianMixture.sample", "n", -1, ValueError, "from 0", "-1", good=0),
    _of("GaussianMixture.sample", "n", 2.0, TypeError, "integer", "2.0", good=2),
    _of("GaussianMixture.sample", "seed", -1, ValueError, "from 0", "-1"),
    _of("GaussianMixture.sample", "draw", 2**31, ValueError, str(2**31), good=2**31 - 1),
    _of("GaussianMixture.perturbed", "sigmas", [0.5, 1.0], ValueError, "decrease strictly", "largest first"),
    _of("PerturbedMixture", "labels", torch.tensor([0, 2, 0]), ValueError, "to 1", "got 2"),
    _of("PerturbedMixture", "labels", torch.zeros(3), TypeError, "int64", good=torch.zeros(3).long()),
    Row(
        "states of another size",
        "annealed_langevin on a mixture",
        lambda k: {"shape": (4, 3)},
        ValueError,
        ("2 elements", "(4, 3)"),
        lambda k: {"shape": (4, 1, 2)},
    ),
    Row(
        "states of another size",
        "langevin on a mixture",
        lambda k: {"init": torch.zeros(3, 4)},
        ValueError,
        ("2 elements", "(3, 4)"),
    ),
]
