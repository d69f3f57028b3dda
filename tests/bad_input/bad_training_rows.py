"""Bad calls of what trains: perturb, the objective as a module, the configuration of a run."""

from __future__ import annotations

import torch
from bad_call_row import INF, NAN, Row
from well_formed_calls import numbers

TRAINING = [
    Row("x int", "perturb", lambda k: {"x": k["x"].int()}, TypeError, ("x must be", "torch.int32")),
    Row("x without dimensions", "perturb", lambda k: {"x": torch.tensor(1.0)}, ValueError, ("x must be", "x[None]")),
    Row("sigmas a list", "perturb", lambda k: {"sigmas": [1.0, 0.5]}, TypeError, ("sigmas", "list")),
    Row("sigmas square", "perturb", lambda k: {"sigmas": torch.ones(2, 2)}, ValueError, ("sigmas", "(2, 2)")),
    Row("no sigmas", "perturb", lambda k: {"sigmas": torch.ones(0)}, ValueError, ("sigmas", "(0,)")),
    Row("label high", "perturb", lambda k: {"labels": torch.tensor([0, 2])}, ValueError, ("labels", "0", "1", "got 2")),
    Row("label low", "perturb", lambda k: {"labels": torch.tensor([-1, 0])}, ValueError, ("labels", "got -1")),
    Row("labels float", "perturb", lambda k: {"labels": torch.zeros(2)}, TypeError, ("labels", "int64")),
    Row("labels short", "perturb", lambda k: {"labels": torch.tensor([0])}, ValueError, ("labels", "(2,)", "(1,)")),
    Row("draw low", "perturb", lambda k: {"draw": -1}, ValueError, ("draw", "-1")),
    Row(
        "noise and seed",
        "perturb",
        lambda k: {"noise": numbers(2, 3)},
        ValueError,
        ("noise=", "seed="),
        lambda k: {"noise": numbers(2, 3), "seed": None, "labels": torch.tensor([0, 1])},
    ),
    Row("noise alone", "perturb", lambda k: {"noise": numbers(2, 3), "seed": None}, ValueError, ("noise=", "labels=")),
    Row(
        "noise of another shape",
        "perturb",
        lambda k: {"noise": numbers(3, 2), "seed": None, "labels": torch.tensor([0, 1])},
        ValueError,
        ("noise", "(2, 3)", "(3, 2)"),
    ),
    Row("unknown output", "objective", lambda k: {"output": "v"}, ValueError, ("output", "'v'", "denoised")),
    Row("unknown reduction", "objective", lambda k: {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
    Row("ascending sigmas", "objective", lambda k: {"sigmas": [0.5, 1.0]}, ValueError, ("sigmas", "largest first")),
    Row("power text", "objective", lambda k: {"anneal_power": "2"}, TypeError, ("anneal_power", "'2'")),
    Row("power NaN", "objective", lambda k: {"anneal_power": NAN}, ValueError, ("anneal_power", "nan")),
    Row("weights short", "objective", lambda k: {"weights": [1.0]}, ValueError, ("weights", "(2,)", "(1,)")),
    Row("weight negative", "objective", lambda k: {"weights": [1.0, -1.0]}, ValueError, ("weights", "-1.0")),
    Row("weight infinite", "objective", lambda k: {"weights": [INF, 1.0]}, ValueError, ("weights", "inf")),
    Row("no steps", "config", lambda k: {"steps": 0}, ValueError, ("steps", "from 1")),
    Row("steps float", "config", lambda k: {"steps": 10.0}, TypeError, ("steps", "10.0")),
    Row("lr zero", "config", lambda k: {"lr": 0.0}, ValueError, ("lr", "0.0")),
    Row("lr text", "config", lambda k: {"lr": "a"}, TypeError, ("lr", "'a'")),
    Row("power NaN of a run", "config", lambda k: {"anneal_power": NAN}, ValueError, ("anneal_power", "nan")),
    Row("lr NaN", "config", lambda k: {"lr": NAN}, ValueError, ("lr", "nan")),
    Row("ema one", "config", lambda k: {"ema": 1.0}, ValueError, ("ema", "1.0", "0.999")),
    Row("unknown ema rule", "config", lambda k: {"ema_rule": "ema"}, ValueError, ("ema_rule", "'ema'", "ncsnv2")),
    Row("unknown rule", "Average", lambda k: {"rule": "warmup"}, ValueError, ("rule", "'warmup'", "score_sde, ncsnv2")),
    Row("rule None", "Average", lambda k: {"rule": None}, ValueError, ("rule", "None", "score_sde")),
    Row("clip negative", "config", lambda k: {"clip": -1.0}, ValueError, ("clip", "-1.0")),
    Row("weight decay NaN", "config", lambda k: {"weight_decay": NAN}, ValueError, ("weight_decay", "nan")),
    Row("unknown objective", "config", lambda k: {"objective": "esm"}, ValueError, ("objective", "'esm'", "dsm, ssm")),
    Row("unknown optimiser", "config", lambda k: {"optimiser": "sgd"}, ValueError, ("optimiser", "'sgd'", "adamw")),
    Row("unknown precision", "config", lambda k: {"precision": "fp8"}, ValueError, ("precision", "'fp8'", "bfloat16")),
    Row("batch not divisible", "config", lambda k: {"accumulate": 3}, ValueError, ("accumulate", "8", "3")),
    Row("augment a dict", "config", lambda k: {"augment": {}}, TypeError, ("augment", "Augment", "dict")),
    Row("compiled ssm", "config", lambda k: {"compile": True, "objective": "ssm"}, ValueError, ("compile", "'ssm'")),
    Row(
        "ssm power", "config", lambda k: {"anneal_power": 1.0, "objective": "ssm"}, ValueError, ("anneal_power", "1.0")
    ),
    Row("seed negative", "config", lambda k: {"seed": -1}, ValueError, ("seed", "-1")),
    Row("log_every zero", "config", lambda k: {"log_every": 0}, ValueError, ("log_every", "0")),
]
