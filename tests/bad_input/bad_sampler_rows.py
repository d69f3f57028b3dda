"""Bad calls of annealed_langevin and langevin: their settings, their score, the chain they go on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bad_call_row import INF, META, NAN, Row
from well_formed_calls import annealed, numbers

import fastlangevin as fl


def _state(**changes: Any) -> fl.ChainState:
    """A stopped chain that the well-formed annealed_langevin can go on with."""
    result = fl.annealed_langevin(**annealed(Path()), callback=lambda info: True, full_output=True)
    return replace(result.state, **changes)


SAMPLERS = [
    Row(
        "neither step size",
        "annealed_langevin",
        lambda k: {"epsilon": None},
        ValueError,
        ("exactly one", "epsilon=", "step_lr=", "neither"),
        lambda k: {"epsilon": None, "step_lr": 0.005},
    ),
    Row(
        "both step sizes",
        "langevin",
        lambda k: {"step_lr": 0.005},
        ValueError,
        ("exactly one", "epsilon=", "step_lr=", "both"),
        lambda k: {"epsilon": None, "step_lr": 0.005},
    ),
    Row("epsilon zero", "annealed_langevin", lambda k: {"epsilon": 0.0}, ValueError, ("epsilon", "above zero", "0.0")),
    Row("epsilon NaN", "langevin", lambda k: {"epsilon": NAN}, ValueError, ("epsilon", "finite", "nan")),
    Row("epsilon infinite", "langevin", lambda k: {"epsilon": INF}, ValueError, ("epsilon", "finite", "inf")),
    Row("epsilon text", "langevin", lambda k: {"epsilon": "small"}, TypeError, ("epsilon", "number", "'small'")),
    Row(
        "step_lr negative",
        "annealed_langevin",
        lambda k: {"epsilon": None, "step_lr": -1e-3},
        ValueError,
        ("step_lr", "above zero", "-0.001"),
        lambda k: {"epsilon": None, "step_lr": 1e-3},
    ),
    Row(
        "no steps",
        "annealed_langevin",
        lambda k: {"steps_per_level": 0},
        ValueError,
        ("steps_per_level", "from 1", "0"),
    ),
    Row("half a step", "annealed_langevin", lambda k: {"steps_per_level": 1.5}, TypeError, ("steps_per_level", "1.5")),
    Row("negative steps", "langevin", lambda k: {"steps": -1}, ValueError, ("steps", "-1"), lambda k: {"steps": 0}),
    Row(
        "more updates than draws",
        "annealed_langevin",
        lambda k: {"sigmas": [3.0, 2.0, 1.0], "steps_per_level": 2**31},
        ValueError,
        (str(3 * 2**31), "updates", str(2**32)),
    ),
    Row(
        "unknown corrector",
        "annealed_langevin",
        lambda k: {"corrector": "mala"},
        ValueError,
        ("corrector", "'mala'", "langevin, ou"),
        lambda k: {"corrector": "ou"},
    ),
    Row(
        "step too long for the corrector",
        "annealed_langevin",
        lambda k: {"corrector": "ou", "epsilon": 1.0},
        ValueError,
        ("corrector='ou'", "4 sigma^2", "smaller", "epsilon="),
        lambda k: {"corrector": "ou", "epsilon": 0.99},
    ),
    Row("no shape", "annealed_langevin", lambda k: {"shape": None}, ValueError, ("shape=", "(64, 3, 32, 32)", "init=")),
    Row("shape is a number", "annealed_langevin", lambda k: {"shape": 64}, TypeError, ("shape must be", "(64, 3, 32, 32)")),
    Row("shape float", "annealed_langevin", lambda k: {"shape": (2.0, 3)}, TypeError, ("shape", "2.0", "integer")),
    Row("shape negative", "annealed_langevin", lambda k: {"shape": (-2, 3)}, ValueError, ("shape", "-2")),
    Row(
        "shape that init does not have",
        "annealed_langevin",
        lambda k: {"init": numbers(4, 3)},
        ValueError,
        ("shape (2, 3)", "init", "(4, 3)", "leave shape= out"),
        lambda k: {"init": numbers(4, 3), "shape": None},
    ),
    Row(
        "unknown init",
        "annealed_langevin",
        lambda k: {"init": "zeros"},
        ValueError,
        ("init must be", "'zeros'", "'uniform', 'normal'"),
        lambda k: {"init": "normal"},
    ),
    Row(
        "init int", "annealed_langevin", lambda k: {"init": torch.zeros(2, 3).int()}, TypeError, ("init", "torch.int32")
    ),
    Row(
        "init is a list",
        "langevin",
        lambda k: {"init": [[0.0]]},
        TypeError,
        ("init must be", "list", "torch.as_tensor"),
    ),
    Row("init complex", "langevin", lambda k: {"init": k["init"].cfloat()}, TypeError, ("init", "torch.complex64")),
    Row("init without a batch", "langevin", lambda k: {"init": torch.tensor(1.0)}, ValueError, ("init", "(B, ...)")),
    Row("dtype int", "annealed_langevin", lambda k: {"dtype": torch.int64}, TypeError, ("dtype", "torch.int64")),
    Row("seed float", "annealed_langevin", lambda k: {"seed": 0.5}, TypeError, ("seed must be an integer", "0.5")),
    Row("seed negative", "langevin", lambda k: {"seed": -1}, ValueError, ("seed", "-1")),
    Row(
        "seed and generator",
        "annealed_langevin",
        lambda k: {"generator": torch.Generator()},
        ValueError,
        ("seed=", "generator=", "not both"),
        lambda k: {"seed": None, "generator": torch.Generator()},
    ),
    Row(
        "one generator for two samples",
        "annealed_langevin",
        lambda k: {"seed": None, "generator": [torch.Generator()]},
        ValueError,
        ("generator", "1 entries", "2 samples"),
        lambda k: {"seed": None, "generator": [torch.Generator(), torch.Generator()]},
    ),
    Row(
        "sample ids repeated past the batch",
        "langevin",
        lambda k: {"sample_ids": [0, 1, 2]},
        ValueError,
        ("sample_ids", "(3,)"),
    ),
    Row(
        "sample offset too large",
        "langevin",
        lambda k: {"sample_offset": 2**56},
        ValueError,
        ("sample_offset", str(2**56)),
    ),
    Row("score is None", "annealed_langevin", lambda k: {"score": None}, TypeError, ("score", "callable")),
    Row("score is a tensor", "langevin", lambda k: {"score": numbers(2, 3)}, TypeError, ("score", "callable")),
    Row(
        "score returns None",
        "annealed_langevin",
        lambda k: {"score": lambda x, labels: None},
        TypeError,
        ("score", "NoneType"),
    ),
    Row(
        "score returns a tuple",
        "annealed_langevin",
        lambda k: {"score": lambda x, labels: (x, x)},
        TypeError,
        ("score", "tuple"),
    ),
    Row(
        "score of another shape",
        "annealed_langevin",
        lambda k: {"score": lambda x, labels: x[:, :2]},
        ValueError,
        ("score", "(2, 3)", "(2, 2)"),
    ),
    Row("score of integers", "langevin", lambda k: {"score": lambda x: x.int()}, TypeError, ("score", "torch.int32")),
    Row(
        "score on another device",
        "langevin",
        lambda k: {"score": lambda x: x.to(META)},
        ValueError,
        ("score is on meta", "state is on cpu"),
    ),
    Row(
        "score that is part of the state",
        "langevin",
        lambda k: {"init": numbers(3, 3), "score": lambda x: x.t()},
        ValueError,
        ("x and score overlap", "score.clone()"),
        lambda k: {"init": numbers(3, 3), "score": lambda x: x.t().clone()},
    ),
    Row(
        "trajectory without full output",
        "annealed_langevin",
        lambda k: {"trajectory": 2},
        ValueError,
        ("trajectory=", "full_output=True"),
        lambda k: {"trajectory": 2, "full_output": True},
    ),
    Row(
        "trajectory negative",
        "langevin",
        lambda k: {"trajectory": -1, "full_output": True},
        ValueError,
        ("trajectory", "-1"),
        lambda k: {"trajectory": 1, "full_output": True},
    ),
    Row("trajectory float", "langevin", lambda k: {"trajectory": 0.5}, TypeError, ("trajectory", "0.5")),
    Row("unknown impl", "annealed_langevin", lambda k: {"impl": "fast"}, ValueError, ("impl must be one of", "'fast'")),
    Row(
        "resume is a tensor",
        "annealed_langevin",
        lambda k: {"resume": numbers(2, 3)},
        TypeError,
        ("resume must be a ChainState", "Tensor"),
        lambda k: {"resume": _state()},
    ),
    Row(
        "resume of another step size",
        "annealed_langevin",
        lambda k: {"resume": _state(), "epsilon": 0.02},
        ValueError,
        ("resume=", "another chain", "epsilon was 0.01", "0.02"),
        lambda k: {"resume": _state(), "epsilon": 0.01},
    ),
    Row(
        "resume of another ladder",
        "annealed_langevin",
        lambda k: {"resume": _state(), "sigmas": [1.0, 0.25]},
        ValueError,
        ("resume=", "another chain", "sigmas was [1.0, 0.5]"),
        lambda k: {"resume": _state()},
    ),
    Row(
        "resume of another sampler",
        "langevin",
        lambda k: {"resume": _state()},
        ValueError,
        ("resume=", "another chain", "annealed_langevin"),
    ),
    Row(
        "resume past the end",
        "annealed_langevin",
        lambda k: {"resume": _state(step=5)},
        ValueError,
        ("resume.step", "5", "from 0 to 4"),
        lambda k: {"resume": _state(step=4)},
    ),
    Row(
        "resume with another seed",
        "annealed_langevin",
        lambda k: {"resume": _state(), "seed": 1},
        ValueError,
        ("resume=", "seed=", "leave"),
        lambda k: {"resume": _state(), "seed": None},
    ),
    Row(
        "resume with a generator",
        "annealed_langevin",
        lambda k: {"resume": _state(), "seed": None, "generator": torch.Generator()},
        ValueError,
        ("resume=", "generator=", "leave"),
        lambda k: {"resume": _state(), "seed": None},
    ),
    Row(
        "resume without the trajectory",
        "annealed_langevin",
        lambda k: {"resume": _state(), "trajectory": 1, "full_output": True},
        ValueError,
        ("resume=", "trajectory=1"),
        lambda k: {"resume": _state(), "full_output": True},
    ),
    Row(
        "resume with other samples",
        "annealed_langevin",
        lambda k: {"resume": _state(), "sample_offset": 10},
        ValueError,
        ("resume=", "sample"),
        lambda k: {"resume": _state(), "sample_offset": 0},
    ),
    Row(
        "resume with another shape",
        "annealed_langevin",
        lambda k: {"resume": _state(), "shape": (5, 3)},
        ValueError,
        ("resume=", "shape", "(5, 3)"),
        lambda k: {"resume": _state(), "shape": (2, 3)},
    ),
]
