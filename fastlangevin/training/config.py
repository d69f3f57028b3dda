"""Training settings: everything besides the data and the network that determines a run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from fastlangevin.data import Augment
from fastlangevin.ladders import number
from fastlangevin.noise import MAX_DRAW, MAX_SEED, integer
from fastlangevin.training.average import DEFAULT_RULE, AverageRule, check_rule

__all__ = ["TrainConfig"]

Objective = Literal["dsm", "ssm"]
Optimiser = Literal["adam", "adamw"]
Precision = Literal["float32", "bfloat16", "float16"]

# What may differ between the parts of one run: it changes no weight and no line of the log.
FREE = ("save_every", "sample_every", "samples")


@dataclass(frozen=True)
class TrainConfig:
    """Training settings. The defaults are those of the shipped checkpoint, except for its ``ema_rule``, which was
    ``"from_zero"``.

    Args:
        steps: optimiser steps.
        batch: samples in a step, over all processes and micro-batches.
        lr: peak learning rate.
        warmup: steps over which the rate rises from 0; it then falls to 0 along half a cosine.
        ema: limit of the decay of the averaged weights; 0 keeps no average.
        ema_rule: how the decay comes to its limit, ``"score_sde"``, ``"ncsnv2"`` or ``"from_zero"``, as in
            :class:`~fastlangevin.training.Average`. None: ``"score_sde"``, and in a run that is resumed the rule that
            it was begun with.
        seed: 64-bit seed of the run.
        objective: ``"dsm"``, denoising, or ``"ssm"``, annealed sliced score matching, both over all levels.
        anneal_power: p of the weight sigma^p of a level in denoising score matching; 2 in sliced.
        optimiser: ``"adam"`` or ``"adamw"``.
        weight_decay: of AdamW, decoupled; with Adam it is the L2 penalty's.
        clip: largest norm of the gradient; 0 does not clip.
        accumulate: micro-batches of a step.
        precision: of the network under autocast; weights, averages and the loss stay in float32. float16 comes with a
            gradient scaler.
        compile: whether the network is compiled by ``torch.compile``.
        channels_last: memory layout of images and convolutions.
        augment: what is done to each batch before noise is added.
        log_every: steps of a line of the log.
        save_every: steps from one saved state to the next.
        sample_every: steps from one picture of samples to the next; 0 draws none.
        samples: samples in a picture.
    """

    steps: int = 4000
    batch: int = 128
    lr: float = 2e-3
    warmup: int = 100
    ema: float = 0.999
    ema_rule: AverageRule | None = None
    seed: int = 0
    objective: Objective = "dsm"
    anneal_power: float = 2.0
    optimiser: Optimiser = "adam"
    weight_decay: float = 0.0
    clip: float = 0.0
    accumulate: int = 1
    precision: Precision = "float32"
    compile: bool = False
    channels_last: bool = False
    augment: Augment = dataclasses.field(default_factory=Augment)
    log_every: int = 50
    save_every: int = 500
    sample_every: int = 0
    samples: int = 36

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, MAX_DRAW),
            ("batch", 1, 2**31),
            ("warmup", 0, MAX_DRAW),
            ("seed", 0, MAX_SEED),
            ("accumulate", 1, 2**31),
            ("log_every", 1, MAX_DRAW),
            ("save_every", 1, MAX_DRAW),
            ("sample_every", 0, MAX_DRAW),
            ("samples", 1, 10_000),
        ):
            object.__setattr__(self, name, integer(name, getattr(self, name), low, high))
        for name in ("lr", "ema", "anneal_power", "weight_decay", "clip"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        for name, kind in (("objective", Objective), ("optimiser", Optimiser), ("precision", Precision)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}")
        if not math.isfinite(self.anneal_power):
            raise ValueError(f"anneal_power must be finite, got {self.anneal_power}; 2 is usual")
        if self.objective == "ssm" and self.anneal_power != 2.0:
            raise ValueError(f"anneal_power must be 2 with objective='ssm', got {self.anneal_power}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}; 1e-3 is a usual rate")
        if self.ema_rule is not None:
            check_rule("ema_rule", self.ema_rule)
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}; 0.999 is usual, 0 turns averaging off")
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be zero or more and finite, got {getattr(self, name)}; 0 turns it off")
        if self.batch % self.accumulate:
            raise ValueError(f"batch must be a multiple of accumulate, got {self.batch} and {self.accumulate}")
        if self.compile and self.objective == "ssm":
            raise ValueError(
                "compile=True cannot train by objective='ssm', which needs second derivatives, and torch.compile gives "
                "none; leave compile out"
            )
        if not isinstance(self.augment, Augment):
            raise TypeError(f"augment must be an Augment, got {type(self.augment).__name__}")

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up times half a cosine."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype under autocast."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]

    def fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its beginning, as plain JSON values."""
        described = {**dataclasses.asdict(self), "ema_rule": self.ema_rule or DEFAULT_RULE}
        return {name: value for name, value in described.items() if name not in FREE}
