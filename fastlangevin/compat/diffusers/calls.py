"""Shared parts of the schedulers' calls: arguments, addresses, and the check of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastlangevin.compat.diffusers.chains import Chains
from fastlangevin.noise import Generators, Purpose, Seed, one_source, resolve_sample_ids, resolve_seed
from fastlangevin.ops import NO_FAULT, randn, step
from fastlangevin.ops.arguments import floating, like_state
from fastlangevin.samplers import ChainState, NonFiniteError, advance
from fastlangevin.samplers.watching import EVERY, faults_in, first_named
from fastlangevin.schemes import Scheme

__all__ = ["Call", "SampleIds", "add_noise", "levels_at"]

SampleIds = Tensor | Sequence[int]


@dataclass
class Call:
    """The samples of a call, whose they are, and where their noise stands.

    Attributes:
        sample: state ``(B, ...)``.
        output: the network's, shape of ``sample``.
        key: of the chain.
        seed: the seed of the chain, or one that was drawn for this call.
        sample_ids: ids ``(B,)``, or None for 0 and up.
        seeded: whether the caller gave the seed, so that draws of one number are alike.
    """

    sample: Tensor
    output: Tensor
    key: Any
    sample_ids: Tensor | None
    seeded: bool
    _seed: Seed | None
    _generator: Generators | None

    @classmethod
    def of(
        cls,
        chains: Chains,
        model_output: Tensor,
        sample: Tensor,
        generator: Generators | None,
        seed: Seed | None,
        sample_ids: SampleIds | None,
    ) -> Call:
        """A call, whose arguments are checked; no seed is drawn yet."""
        floating("sample", sample)
        if not sample.ndim:
            raise ValueError("sample must have a batch dimension, (B, ...), got a tensor without dimensions")
        like_state("model_output", model_output, sample)
        batch, device = sample.shape[0], sample.device
        one_source(seed, generator)
        resolved = None if seed is None else resolve_seed(seed, None, batch, device)
        if isinstance(sample_ids, Iterable) and not isinstance(sample_ids, Tensor):
            sample_ids = list(sample_ids)
        if isinstance(generator, Sequence):
            if len(generator) == 1 and batch != 1:
                # One for all, as diffusers has it: the samples then differ by their ids.
                generator = generator[0]
            elif sample_ids is None:
                sample_ids = torch.zeros(batch, dtype=torch.int64, device="cpu")
        ids, _ = resolve_sample_ids(sample_ids, 0, batch, device)
        key = chains.key(seed, generator, sample_ids, batch)
        return cls(sample, model_output, key, ids, seed is not None, resolved, generator)

    @property
    def seed(self) -> Seed:
        """Drawn at the first use, after all else has been checked."""
        if self._seed is None:
            batch, device = self.sample.shape[0], self.sample.device
            self._seed, self._generator = resolve_seed(None, self._generator, batch, device), None
        return self._seed

    def move(
        self, scheme: Scheme, *, draw: int, number: int, fault: Tensor | None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The state after a step, and the record ``(B,)`` of the first draws whose results are not finite, if any is.

        Args:
            scheme: the table, whose steps call the network once.
            draw: number of the step and of its draw.
            number: by which the record knows it.
            fault: the chain's record so far.
            noise: the noise itself, if it is not that of one draw.
        """
        state = ChainState(self.sample, draw, 0 if noise is not None else self.seed, self.sample_ids)
        new = advance(scheme, state, self.output, noise=noise)
        if new.fault is None:
            return new.x, None
        found = torch.where(new.fault == NO_FAULT, NO_FAULT, number)
        known = fault is not None and fault.shape == found.shape and fault.device == found.device
        return new.x, torch.minimum(fault, found) if fault is not None and known else found

    def look(self, moved: Tensor, fault: Tensor | None, number: int, draws: int, level: int | None) -> None:
        """Raises NonFiniteError if a result is not finite: at once on the CPU, else every 32 draws and at the end.

        Args:
            moved: the new state.
            fault: the record of :meth:`move`.
            number, draws: number of this draw in the record, and draws of the whole chain.
            level: index of this draw's noise level, if it is known.
        """
        if fault is None or not fault.numel():
            return
        if fault.device.type != "cpu" and (number + 1) % EVERY and number + 1 < draws:
            return
        if int(fault.min()) == NO_FAULT:
            return
        ids = range(len(fault)) if self.sample_ids is None else self.sample_ids.tolist()
        found = faults_in(fault, ids, lambda step: level if step == number else None)
        first = min(found, key=lambda each: each.step)
        raise NonFiniteError(
            f"{len(found)} of {len(fault)} samples are not finite, the first at draw {first.step}"
            f"{'' if first.level is None else f' at level {first.level}'}: {first_named(found)}. sample or "
            "model_output is not finite, or the chain diverged: check what the network returns, or take a smaller step "
            "size",
            found,
            ChainState(moved.detach(), number + 1, self.seed, self.sample_ids, fault=fault),
        )


def add_noise(original_samples: Tensor, noise: Tensor | None, sigma: Tensor) -> Tensor:
    """x + sigma z for noise levels ``(B,)``."""
    floating("original_samples", original_samples)
    if not original_samples.ndim or sigma.shape != original_samples.shape[:1]:
        raise ValueError(
            f"timesteps must have one entry for each sample, got {tuple(sigma.shape)} for samples of shape "
            f"{tuple(original_samples.shape)}"
        )
    if noise is None:
        noise = randn(
            original_samples.shape, purpose=Purpose.DSM_NOISE, dtype=torch.float32, device=original_samples.device
        )
    like_state("noise", noise, original_samples)
    return step(original_samples, noise, a=sigma.to(original_samples.device), b=None)


def levels_at(table: Tensor, timesteps: Tensor, zero: str) -> Tensor:
    """The noise levels of integer timesteps ``(B,)``."""
    if not isinstance(timesteps, Tensor) or timesteps.is_floating_point() or timesteps.dtype == torch.bool:
        kind = timesteps.dtype if isinstance(timesteps, Tensor) else type(timesteps).__name__
        raise TypeError(f"timesteps must be an int64 tensor (B,) of levels, got {kind}; use .long()")
    if timesteps.device.type == "cpu" and timesteps.numel():
        low, high = (int(each) for each in timesteps.aminmax())
        if low < 0 or high >= len(table):
            raise ValueError(
                f"timesteps must be from 0 ({zero} sigma) to {len(table) - 1}, got {low if low < 0 else high}"
            )
    return table.to(timesteps.device)[timesteps]
