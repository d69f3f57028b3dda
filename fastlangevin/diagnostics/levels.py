"""Diagnostics of annealed chains, noise level by noise level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastlangevin.diagnostics.autocorrelation import autocorrelation
from fastlangevin.diagnostics.effective import ess
from fastlangevin.diagnostics.elements import FEWEST_FRAMES, check_trajectory
from fastlangevin.diagnostics.rhat import split_rhat
from fastlangevin.ladders import Sigmas, check_sigmas
from fastlangevin.noise import integer
from fastlangevin.samplers import SamplingResult
from fastlangevin.values import shown

__all__ = ["LevelDiagnostics", "by_level"]


@dataclass(frozen=True, eq=False)
class LevelDiagnostics:
    """The result of :func:`by_level`. ``print`` shows it as a table.

    Attributes:
        frames: frames of the trajectory used for each level, L ranges.
        every: updates between two frames, the unit of the lag.
        chains: B.
        sigmas: the noise levels, largest first, where they are known.
        rhat: rank-normalised split R-hat, fp64 ``(L, ...)``.
        ess_bulk: effective sample size of the bulk, likewise; a level has ``chains * len(frames[level])`` draws.
        ess_tail: likewise, the smaller one of the 5 % and the 95 % quantile.
        autocorrelation: likewise, at the lag of one frame, about the mean of all chains.
    """

    frames: tuple[range, ...]
    every: int
    chains: int
    sigmas: tuple[float, ...] | None
    rhat: Tensor = field(repr=False)
    ess_bulk: Tensor = field(repr=False)
    ess_tail: Tensor = field(repr=False)
    autocorrelation: Tensor = field(repr=False)

    def __str__(self) -> str:
        """A line for each level: the median and the worst of its elements; those without a number are only counted."""
        lines = [["level", "sigma", "frames", "draws"]]
        for name in ("R-hat", "bulk ESS", "tail ESS", "lag 1"):
            lines[0] += [name, "worst"]
        lines[0].append("constant or NaN")
        for level, frames in enumerate(self.frames):
            rhat, bulk, tail, lag = (
                each[level].flatten() for each in (self.rhat, self.ess_bulk, self.ess_tail, self.autocorrelation)
            )
            sigma = "" if self.sigmas is None else f"{self.sigmas[level]:.4g}"
            line = [str(level), sigma, f"{frames.start}-{frames.stop - 1}", str(self.chains * len(frames))]
            line += [_number(rhat, 0.5, ".3f"), _number(rhat, 1.0, ".3f")]
            line += [_number(size, share, ".0f") for size in (bulk, tail) for share in (0.5, 0.0)]
            line += [_number(lag, 0.5, ".3f"), _number(lag, 1.0, ".3f"), str(int(rhat.isnan().sum()))]
            lines.append(line)
        columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
        widths = [max(map(len, column)) for column in columns]
        table = ["  ".join(map(str.rjust, line, widths)) for line in zip(*columns, strict=True)]
        elements = self.rhat[0].numel()
        table.append(
            f"of {elements} element{'s' * (elements != 1)} and {self.chains} chain{'s' * (self.chains != 1)}, a frame "
            f"every {self.every} update{'s' * (self.every != 1)}; before a worst stands the median"
        )
        return "\n".join(table)


def by_level(
    trajectory: SamplingResult | Tensor,
    steps_per_level: int | None = None,
    *,
    every: int,
    warmup: float = 0.5,
    sigmas: Sigmas | None = None,
) -> LevelDiagnostics:
    """R-hat, effective sample sizes and autocorrelation at each noise level of annealed chains.

    Frame f is the state after f * every updates. Level i makes the updates i T + 1 to (i + 1) T, counted from 1 and
    with T = ``steps_per_level``, so it has the frames with i T < f * every <= (i + 1) T: the state that it begins from
    is the last one of the level before, and frame 0 is of no level. The frames after its first ``warmup`` * T updates
    are used. A chain that was stopped within a level is diagnosed up to there, without that level where too few of its
    frames were kept.

    An R-hat far above 1 is no fault of an annealed chain by itself: with few steps at a level the chains keep the
    places that the levels before gave them, which are right if those were. It says that the chains of this level do not
    forget them, so that whatever was wrong before is not mended here.

    Args:
        trajectory: what :func:`fastlangevin.annealed_langevin` returned with ``full_output=True``, or its trajectory
            ``(F, B, ...)``.
        steps_per_level: T, updates for each level; a result knows its own.
        every: the ``trajectory=`` that it was kept with: updates between two frames.
        warmup: share of each level's updates that is left out, from 0 to below 1.
        sigmas: the ladder, for the table; a result knows its own.

    Returns:
        A :class:`LevelDiagnostics`, whose tensors are on the trajectory's device.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, a result was kept in another way, or a
            level has fewer than 4 frames.
    """
    every = integer("every", every, 1, 2**31)
    steps = None if steps_per_level is None else integer("steps_per_level", steps_per_level, 1, 2**32)
    ladder = None if sigmas is None else check_sigmas(sigmas)
    states = check_trajectory(trajectory.trajectory if isinstance(trajectory, SamplingResult) else trajectory)
    if isinstance(trajectory, SamplingResult):
        kept = trajectory.state.step // every + 1
        if states.shape[0] != kept:
            raise ValueError(
                f"every={every} does not fit the result: {trajectory.state.step} updates make {kept} frames, and it "
                f"has {states.shape[0]}; give the trajectory= that it was sampled with"
            )
        steps, ladder = _recorded(trajectory.state.record, steps, ladder)
    if steps is None:
        raise ValueError("steps_per_level must be given with a trajectory; only a SamplingResult knows its own")
    frames = level_frames(states.shape[0], steps, every, _share("warmup", warmup))
    if ladder is not None and len(ladder) < len(frames):
        raise ValueError(
            f"sigmas has {len(ladder)} levels but the trajectory of {states.shape[0]} frames goes through "
            f"{len(frames)}, at steps_per_level={steps} and every={every}"
        )
    parts = [states[each.start : each.stop] for each in frames]
    return LevelDiagnostics(
        frames=tuple(frames),
        every=every,
        chains=states.shape[1],
        sigmas=None if ladder is None else tuple(ladder[: len(frames)]),
        rhat=torch.stack([split_rhat(part) for part in parts]),
        ess_bulk=torch.stack([ess(part) for part in parts]),
        ess_tail=torch.stack([ess(part, kind="tail") for part in parts]),
        # The chains of a level are many and short: their own means would take much of the correlation away.
        autocorrelation=torch.stack([autocorrelation(part, 1, center="pooled")[1] for part in parts]),
    )


def level_frames(count: int, steps: int, every: int, warmup: float) -> list[range]:
    """The frames used for each level, of a trajectory of ``count`` frames; see :func:`by_level`."""
    updates = (count - 1) * every
    skipped = round(warmup * steps)
    levels = []
    for level in range(-(-updates // steps)):
        first = (level * steps + skipped) // every + 1
        last = min((level + 1) * steps // every, count - 1)
        whole = updates + every > (level + 1) * steps  # the next frame is not of this level
        if last - first + 1 >= FEWEST_FRAMES:
            levels.append(range(first, last + 1))
        elif whole or not level:
            raise ValueError(
                f"level {level} has {max(0, last - first + 1)} frames after its warm-up and needs {FEWEST_FRAMES}: one "
                f"every {every} updates, of {steps} without the first {skipped}; keep more with a smaller trajectory=, "
                "or take a smaller warmup="
            )
    return levels


def _recorded(
    record: dict[str, Any], steps: int | None, ladder: list[float] | None
) -> tuple[int | None, list[float] | None]:
    """Updates a level and the ladder as a chain's record has them; what is given must agree.

    A chain of ``langevin`` has one level.
    """
    own_steps = record.get("steps_per_level", record.get("steps", steps))
    if steps not in (None, own_steps):
        raise ValueError(f"steps_per_level={steps} but the result was sampled with {own_steps}; leave it out")
    own_ladder = record.get("sigmas", ladder)
    if ladder not in (None, own_ladder):
        raise ValueError(f"sigmas is {ladder} but the result was sampled with {own_ladder}; leave it out")
    return own_steps, own_ladder


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number from 0 to below 1, got {shown(value)} ({type(value).__name__})")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1, a share of the updates of a level, got {shown(value)}")
    return float(value)


def _number(values: Tensor, share: float, form: str) -> str:
    """A quantile of what is not NaN: 0, 0.5 or 1."""
    values = values[~values.isnan()].sort().values
    return format(values[int(share * (len(values) - 1))].item(), form) if len(values) else "-"
