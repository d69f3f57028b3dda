"""Bad calls of the samplers made of other rules, and of what acts on every update."""

from __future__ import annotations

from typing import Any

import torch
from bad_call_row import INF, NAN, Row
from sampler_calls import LADDER

UP = LADDER[::-1]


def _one(call: str, name: str, bad: Any, error: type[Exception], *words: str, **good: Any) -> Row:
    mended = good if good else None
    return Row(
        f"{name} {bad!r}",
        call,
        lambda k: {name: bad},
        error,
        (name, *words),
        lambda k: {} if mended is None else {name: mended["good"]},
    )


MOVES = [
    *(
        _one(call, "sigmas", UP, ValueError, "ascends", "flip(0)")
        for call in ("consistent_annealed", "predictor_corrector", "interpolation")
    ),
    _one("predictor_corrector", "snr", 0.0, ValueError, "above zero", "0.0"),
    _one("predictor_corrector", "snr", -0.1, ValueError, "above zero", "-0.1"),
    _one("predictor_corrector", "snr", NAN, ValueError, "finite"),
    _one("predictor_corrector", "snr", None, TypeError, "None"),
    _one("predictor_corrector", "norm", "mean", ValueError, "sample, batch, sqrt_d", "'mean'", good="batch"),
    _one("predictor_corrector", "predictor", "ddpm", ValueError, "reverse_diffusion", "'ddpm'", good="none"),
    _one("predictor_corrector", "corrector_steps", -1, ValueError, "-1", good=0),
    _one("predictor_corrector", "order", "noise", ValueError, "'score'", good="score"),
    Row(
        "nothing to do",
        "predictor_corrector",
        lambda k: {"predictor": "none", "corrector_steps": 0},
        ValueError,
        ("predictor='none'", "corrector_steps=0"),
        lambda k: {"predictor": "none", "corrector_steps": 1},
    ),
    _one("consistent_annealed", "epsilon", 1e-9, ValueError, good=0.09),
    _one("consistent_annealed", "clamp", (1.0, 0.0), ValueError, "low below high", good=(0.0, 1.0)),
    _one("consistent_annealed", "clamp", 1.0, TypeError, "pair", "1.0"),
    _one("consistent_annealed", "clamp", (None, 1.0), TypeError, "pair of numbers", "None", good=(0.0, 1.0)),
    _one("consistent_annealed", "clamp", ("low", 1.0), TypeError, "pair of numbers", "'low'", good=(0.0, 1.0)),
    _one("consistent_annealed", "order", "both", ValueError, "score, noise", "'both'", good="noise"),
    _one("consistent_annealed", "drift", 1.0, TypeError, "drift(x, labels)", "float"),
    _one("consistent_annealed", "inpainting", torch.zeros(3), TypeError, "Inpainting(mask, known)", "Tensor"),
    _one("consistent_annealed", "cuda_graph", "yes", ValueError, "'auto', True or False", "'yes'", good=False),
    _one("consistent_annealed", "cuda_graph", 1, ValueError, "'auto', True or False", "1", good="auto"),
    _one("predictor_corrector", "cuda_graph", True, ValueError, "cpu", "CUDA devices", "'auto'", good="auto"),
    _one("langevin", "cuda_graph", True, ValueError, "cpu", "CUDA devices", "'auto'", good=False),
    _one("inpainted", "cuda_graph", True, ValueError, "inpainting=", "'auto'", good=False),
    _one("interpolation", "cuda_graph", True, ValueError, "outside of the update", "'auto'", good="auto"),
    _one("annealed_langevin", "temperature", -1.0, ValueError, "not be negative", "-1.0", good=0.0),
    _one("annealed_langevin", "temperature", INF, ValueError, "finite", "inf"),
    _one("annealed_langevin", "temperature", None, TypeError, "zero or above", "None", good=1.0),
    _one("langevin", "temperature", "1", TypeError, "zero or above", "'1'", good=0.5),
    _one("interpolation", "points", 1, ValueError, "from 2", "1", good=3),
    _one("interpolation", "sample_ids", [0, 1], ValueError, "sample_offset="),
    _one("interpolation", "init", "zeros", ValueError, "'uniform'", "'zeros'", good="normal"),
    _one("interpolation", "seed", torch.zeros(2, dtype=torch.int64), ValueError, "one seed", good=3),
    _one("interpolation", "shape", None, ValueError, "(rows, ...)"),
    _one("Inpainting", "mask", torch.ones(3), TypeError, "bool", "torch.float32", "mask.bool()"),
    _one("Inpainting", "mask", [True], TypeError, "bool", "list"),
    _one("Inpainting", "known", torch.zeros(3, dtype=torch.int64), TypeError, "torch.int64"),
    _one("Inpainting", "noise", "once", ValueError, "'level'", "'step'", "'once'", good="step"),
    _one("inpainted", "mask", torch.ones(4, dtype=torch.bool), ValueError, "(2, 3)", "(4,)"),
    _one("inpainted", "known", torch.zeros(3, 3), ValueError, "(2, 3)", "(3, 3)", good=torch.zeros(1, 3)),
]
