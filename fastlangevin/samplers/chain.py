"""The state of a chain between two updates, and the results of samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from fastlangevin.noise import Address, Purpose, Seed

__all__ = ["Callback", "ChainState", "Fault", "SamplingResult", "StepInfo", "Telemetry"]


class Fault(NamedTuple):
    """A sample whose state took a value that is NaN or infinite.

    Attributes:
        row: place in the batch.
        sample_id: global id; the place in the batch for an interpolation, whose samples share their noise.
        step: number of the first update with such a result, which is its draw number, from 0; that of the denoise step
            is the number of updates. Of the stand-ins for score_sde and k-diffusion, the place of the time or level.
        level: index of that update's noise level, or None for a chain without levels.
    """

    row: int
    sample_id: int
    step: int
    level: int | None


@dataclass(frozen=True)
class Telemetry:
    """Norms that ``telemetry=`` kept for K updates, on the state's device.

    Attributes:
        steps: number of each update, from 0, K of them.
        levels: index of each update's noise level, or None for a chain without levels.
        score_norm: ||s|| of each sample, ``(K, B)``, in fp32, or fp64 for fp64 scores.
        signal_to_noise: ||a s|| / ||b z|| of the update c x + a s + b z, ``(K, B)``, which the paper's step sizes keep
            from depending on the level (Song and Ermon 2019, section 4.3); infinite where no noise was added.
    """

    steps: tuple[int, ...]
    levels: tuple[int | None, ...]
    score_norm: Tensor
    signal_to_noise: Tensor


@dataclass(frozen=True)
class ChainState:
    """A chain between two updates: everything that is needed to go on with the same bits.

    Attributes:
        x: state ``(B, ...)``.
        step: steps done, which is the number of the next step.
        seed: the seed, or an int64 tensor ``(B,)`` of seeds by their bits.
        sample_ids: global ids ``(B,)``, or None for ``sample_offset`` and up.
        sample_offset: id of the first sample.
        trajectory: frames kept so far ``(F, B, ...)``, or None.
        record: what the chain is: ladder, step size, rule, stream version. A resume must match it. Of the score, a
            drift and an inpainting's mask and data it has nothing that could be compared.
        fault: int64 ``(B,)``, the number of each sample's first update that was not finite, 2^63 - 1 where there is
            none; or None where nobody looked.
        telemetry: the norms kept so far, or None.
        carried: tensors by the names of the slots that the scheme keeps between steps beside the state; inside a step,
            of all slots that were written.
        row: rows of the step that are made already, 0 between steps: see :func:`fastlangevin.samplers.advance`.
    """

    x: Tensor
    step: int
    seed: Seed
    sample_ids: Tensor | None = None
    sample_offset: int = 0
    trajectory: Tensor | None = None
    record: dict[str, Any] = field(default_factory=dict)
    fault: Tensor | None = None
    telemetry: Telemetry | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)
    row: int = 0

    @property
    def slots(self) -> dict[str, Tensor]:
        """The slots by their names: the state ``x`` and those that are carried."""
        return {"x": self.x, **self.carried}

    @property
    def address(self) -> Address:
        """The address of the next step's noise, for schemes whose step has one draw, that of its number."""
        return Address(self.seed, self.step, self.sample_ids, self.sample_offset, int(Purpose.LANGEVIN))


@dataclass(frozen=True)
class SamplingResult:
    """The result of a sampler with ``full_output=True``.

    Attributes:
        samples: ``(B, ...)``.
        trajectory: ``(F, B, ...)``, the states after 0, k, 2k, ... updates for ``trajectory=k``, or None.
        state: the chain as it was left, for ``resume=``.
        evaluations: calls of the score function in this run.
        faults: a :class:`Fault` for each sample that took a value that is not finite, none as a rule; None with
            ``non_finite=None``.
        telemetry: the :class:`Telemetry` of the updates that ``telemetry=`` chose, or None.
    """

    samples: Tensor
    trajectory: Tensor | None
    state: ChainState
    evaluations: int
    faults: tuple[Fault, ...] | None = None
    telemetry: Telemetry | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The record of the run: sampler, ladder, step size, seed and everything else that decides the samples."""
        return {**self.state.record, "seed": self.state.seed}


class StepInfo(NamedTuple):
    """The argument of a callback after every update.

    Attributes:
        x: the live state; ``clone()`` it to keep it.
        step: updates done, counted from 1.
        steps: updates in the whole chain.
        level: index of the noise level of the update.
        state: makes the :class:`ChainState` of this moment (a copy).
    """

    x: Tensor
    step: int
    steps: int
    level: int | None
    state: Callable[[], ChainState]


Callback = Callable[[StepInfo], bool | None]
