"""Monitors a running chain: states that are not finite, norms of the score, signal-to-noise ratios.

The update's kernel records a state's first value that is no finite number; the record stays on the device, where it is
read every 32 updates and at the end, so that the host waits no more often. Norms are made by a kernel of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address
from fastlangevin.noise import integer
from fastlangevin.ops.arguments import compute_dtype
from fastlangevin.ops.sample_norms import norms_with_noise, sample_norms
from fastlangevin.ops.step import NO_FAULT
from fastlangevin.samplers.chain import ChainState, Fault, Telemetry

__all__ = [
    "EVERY",
    "Kept",
    "NonFinite",
    "NonFiniteError",
    "Watch",
    "check_watching",
    "faults_in",
    "first_named",
    "not_finite",
]

NonFinite = Literal["raise", "freeze", "report"]
Kept = int | Literal["level"]
# Updates between two looks at the record: a wait in 32, and at most so many updates in vain.
EVERY = 32
NAMED = 8


class NonFiniteError(RuntimeError):
    """A chain took values that are NaN or infinite.

    Attributes:
        faults: a :class:`Fault` for each sample that did, by its row.
        state: the :class:`ChainState` when this was found; the other samples are as they should be, and the record is
            part of it. For a sampler ``resume=error.state`` with ``non_finite="freeze"`` or ``"report"`` goes on.
    """

    def __init__(self, message: str, faults: tuple[Fault, ...], state: ChainState) -> None:
        super().__init__(message)
        self.faults = faults
        self.state = state

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str, tuple[Fault, ...], ChainState]]:
        # As other processes send it: what an exception is made of again is by default its message alone.
        return type(self), (str(self), self.faults, self.state)


def check_watching(non_finite: object, telemetry: object, full_output: bool) -> Kept:
    """Raises unless both are of the kind that samplers take; returns what is kept."""
    if non_finite is not None and non_finite not in get_args(NonFinite):
        raise ValueError(f"non_finite must be one of {', '.join(get_args(NonFinite))}, or None, got {non_finite!r}")
    if non_finite == "report" and not full_output:
        raise ValueError("non_finite='report' is returned in the result object; add full_output=True")
    if isinstance(telemetry, str) and telemetry != "level":
        raise ValueError(f"telemetry must be 'level', or a number of updates, got {telemetry!r}")
    kept: Kept = "level"
    if not isinstance(telemetry, str):
        kept = integer("telemetry", int(telemetry) if isinstance(telemetry, bool) else telemetry, 0, 2**31)
    if kept and not full_output:
        raise ValueError("telemetry= is returned in the result object; add full_output=True")
    return kept


def not_finite(x: Tensor) -> Tensor:
    """Returns whether each sample of a state ``(B, ...)`` holds a NaN or an infinity, bool ``(B,)``."""
    return ~x.unsqueeze(-1).isfinite().flatten(1).all(1)


def faults_in(record: Tensor, ids: Sequence[int], level: Callable[[int], int | None]) -> tuple[Fault, ...]:
    """The samples, of these ids, that a record ``(B,)`` has as not finite. Waits for the device."""
    steps = enumerate(record.tolist())
    return tuple(Fault(row, ids[row], step, level(step)) for row, step in steps if step != NO_FAULT)


def first_named(found: tuple[Fault, ...]) -> str:
    """The samples of the first step that is not finite, for a message."""
    first = min(each.step for each in found)
    ids = [str(each.sample_id) for each in found if each.step == first]
    return f"sample{'s' if len(ids) > 1 else ''} {', '.join(ids[:NAMED])}{', ...' if len(ids) > NAMED else ''}"


class Watch:
    """Monitors one chain.

    Args:
        start: where the chain begins, with the records so far.
        total: its updates.
        level: the noise level of an update, and of the denoise step, whose number is ``total``.
        shares: whether samples share their noise, so that their ids are not their own.
        non_finite, kept: as :func:`check_watching` passed them.
    """

    def __init__(
        self,
        start: ChainState,
        total: int,
        level: Callable[[int], int | None],
        shares: bool,
        non_finite: NonFinite | None,
        kept: Kept,
    ) -> None:
        self.total = total
        self.level = level
        self.shares = shares
        self.raises = non_finite == "raise"
        self.kept = kept
        self.freeze = non_finite == "freeze"
        batch, device = start.x.shape[0], start.x.device
        watched = non_finite is not None
        self.fault = torch.full((batch,), NO_FAULT, dtype=torch.int64, device=device) if watched else None
        self.restart(start)

    def restart(self, start: ChainState) -> None:
        """Watches another chain, in the record of this one."""
        self.start = start
        if self.fault is not None and start.fault is not None:
            self.fault.copy_(start.fault)
        elif self.fault is not None:
            self.fault.fill_(NO_FAULT)
        past = start.telemetry
        self.steps = [] if past is None else list(past.steps)
        self.norms = [] if past is None else list(past.score_norm)
        self.ratios = [] if past is None else list(past.signal_to_noise)

    def wants(self, index: int, level: int | None) -> bool:
        """Returns whether the norms of an update, which is of this level, are kept."""
        if self.kept == "level":
            return index + 1 == self.total or self.level(index + 1) != level
        return self.kept > 0 and (index + 1) % self.kept == 0

    def measure(
        self,
        index: int,
        score: Tensor,
        a: float | Tensor,
        b: float | Tensor | None,
        address: Address,
        noise: Tensor | None,
        impl: str,
    ) -> None:
        """Keep the norms of an update, whose noise is that of its address, or given itself."""
        if b is None:
            of_score = sample_norms(score, impl=impl)
            ratio = torch.full_like(of_score, torch.inf)
        else:
            of_score, of_noise = norms_with_noise(score, address, noise=noise, impl=impl)
            signal: Any = abs(a)
            disturbance: Any = abs(b)
            ratio = (of_score * signal) / (of_noise * disturbance)
        self.steps.append(index)
        self.norms.append(of_score)
        self.ratios.append(ratio.to(of_score.dtype))

    def telemetry(self) -> Telemetry | None:
        """The norms that were kept so far."""
        if not self.kept and not self.steps:
            return None
        empty = self.start.x.new_empty((0, self.start.x.shape[0]), dtype=compute_dtype(self.start.x))
        norms, ratios = (torch.stack(each) if each else empty for each in (self.norms, self.ratios))
        return Telemetry(tuple(self.steps), tuple(self.level(step) for step in self.steps), norms, ratios)

    def find(self, x: Tensor, before: Tensor | None, step: int | Tensor, *, mends: bool = False) -> None:
        """Looks at the result of an update whose kernel did not. Without waiting for the device.

        Args:
            x: the result; a sample that is frozen is taken back in it.
            before: the state before the update, where samples are frozen.
            step: the number of the update.
            mends: whether a sample that is finite again is no longer recorded, unless it is frozen.
        """
        assert self.fault is not None
        good = self.fault == NO_FAULT
        if self.freeze:
            assert before is not None
            x.copy_(torch.where(good.view(-1, *[1] * (x.ndim - 1)), x, before))
        bad = not_finite(x)
        self.fault.masked_fill_(bad & good, step)
        if mends and not self.freeze:
            self.fault.masked_fill_(~bad, NO_FAULT)

    def frozen(self) -> Tensor | None:
        """The samples that are left as they are, bool ``(B,)``, or None where none ever is."""
        return self.fault != NO_FAULT if self.freeze and self.fault is not None else None

    def record(self) -> Tensor | None:
        """The record so far, for a :class:`ChainState`."""
        return self.start.fault if self.fault is None else self.fault.clone()

    def faults(self) -> tuple[Fault, ...] | None:
        """At the end: the samples that are not finite, or None where nobody looked."""
        if self.fault is None:
            return None
        return () if self.raises else self._found(self.fault)

    def _found(self, fault: Tensor) -> tuple[Fault, ...]:
        """The samples that are not finite. Waits for the device."""
        offset = 0 if self.shares else self.start.sample_offset
        given = None if self.shares else self.start.sample_ids
        return faults_in(fault, range(offset, offset + len(fault)) if given is None else given.tolist(), self.level)

    def check(self, done: int, state: Callable[[], ChainState], *, now: bool = False) -> None:
        """Raises where a state is not finite, if it is to; looks after every 32nd update, or ``now``."""
        if not self.raises or self.fault is None or not (now or done % EVERY == 0) or not self.fault.numel():
            return
        if int(self.fault.min()) != NO_FAULT:
            found = self._found(self.fault)
            raise NonFiniteError(self._say(found), found, state())

    def _say(self, found: tuple[Fault, ...]) -> str:
        first = min(found, key=lambda each: each.step)
        what = "the denoise step" if first.step == self.total else f"update {first.step} (of {self.total}, from 0)"
        where = "" if first.level is None else f" at level {first.level}"
        return (
            f"{len(found)} of {self.start.x.shape[0]} samples are not finite, the first in {what}{where}: "
            f"{first_named(found)}. {self.advice(where)}"
        )

    def advice(self, where: str) -> str:
        """Advice for the user, about the level that a message names as ``where``."""
        return (
            f"The chain diverged, or the score is not finite: take a smaller step size, or check what the score "
            f"returns{where}. Nothing is lost: this error's .state holds the chain, and resume=error.state with "
            "non_finite='freeze' (leave these samples as they are) or 'report' goes on"
        )
