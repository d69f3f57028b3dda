"""A plan for sampling: ladder, updates a level and step size, for data and a number of score evaluations."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastlangevin.advisor import spacing
from fastlangevin.advisor.distance import MEMORY, largest_distance
from fastlangevin.advisor.picture import draw_plan
from fastlangevin.advisor.step_size import MAX_STEPS, final_variance_ratio, step_size_for
from fastlangevin.ladders import ends, geometric_sigmas, positive
from fastlangevin.noise import MAX_SAMPLE_ID, MAX_SEED, integer
from fastlangevin.ops.arguments import elements_per_sample, sizes
from fastlangevin.values import shown

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from fastlangevin.data.source import Source

__all__ = ["SamplingPlan", "plan"]

# Below this the score of a level has hardly seen where the level before leaves its samples.
SMALL_OVERLAP = 0.1
# Samples of point data 12 % too wide before the denoise step. The published plans have 5.8 to 9.7 %.
WIDE = 1.25
NOTHING = "give the data, or sigma_1= and shape=, such as sigma_1=50.0 and shape=(3, 32, 32)"


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """A plan for annealed Langevin dynamics. ``print`` shows it as a table.

    Attributes:
        sigmas: the geometric ladder, fp64 ``(levels,)``, largest first, in units of the data.
        sigma_1: its largest noise level.
        sigma_L: its smallest.
        gamma: sigma_i / sigma_{i+1}.
        levels: L.
        D: elements of a sample.
        C: overlap of neighbouring levels, see :func:`fastlangevin.advisor.overlap`.
        steps_per_level: T.
        step_lr: the step size in the published code's convention, in squared units of the data.
        epsilon: the same in the paper's, 2 step_lr.
        R: variance with which a level is left, over sigma_i^2, see :func:`fastlangevin.advisor.variance_ratio`.
        final_R: the same at the end of the chain, see :func:`fastlangevin.advisor.final_variance_ratio`.
        denoise: whether the chain ends with the denoise step.
        budget: score evaluations that were allowed.
        evaluations: those of the plan, L T and one for the denoise step.
        notes: remarks and warnings.
    """

    sigmas: Tensor
    sigma_1: float
    sigma_L: float
    gamma: float
    levels: int
    D: int
    C: float
    steps_per_level: int
    step_lr: float
    epsilon: float
    R: float
    final_R: float
    denoise: bool
    budget: int
    evaluations: int
    notes: tuple[str, ...] = ()

    def kwargs(self) -> dict[str, Any]:
        """Arguments of :func:`fastlangevin.annealed_langevin`: sigmas, epsilon, steps_per_level, denoise."""
        return {
            "sigmas": self.sigmas,
            "epsilon": self.epsilon,
            "steps_per_level": self.steps_per_level,
            "denoise": self.denoise,
        }

    def picture(self, path: str | os.PathLike[str]) -> None:
        """Write a picture of the plan: its ladder, the overlap of neighbouring levels, and R against the step size.

        Args:
            path: of the PNG file; its folder must exist.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: the file cannot be written.
        """
        draw_plan(
            path, self.sigmas.tolist(), self.D, steps_per_level=self.steps_per_level, chosen=(self.step_lr, self.R)
        )

    def __str__(self) -> str:
        wide = 100 * (math.sqrt(self.final_R) - 1)
        denoise = ", the denoise step included" if self.denoise else ""
        rows = [
            ("evaluations", f"{self.evaluations} of {self.budget}{denoise}"),
            ("ladder", f"{self.levels} levels from {self.sigma_1:.6g} to {self.sigma_L:.6g}, gamma = {self.gamma:.6g}"),
            ("overlap", f"C = {self.C:.3f} of neighbouring levels, samples of {self.D} elements"),
            ("steps", f"T = {self.steps_per_level} for each level"),
            ("step size", f"step_lr = {self.step_lr:.6g} (published code), epsilon = {self.epsilon:.6g} (paper)"),
            ("variance", f"R = {self.R:.4f} at a level; samples of point data end {wide:.1f} % too wide"),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(f"{name:<13}{value}" for name, value in rows)


def plan(
    dataset: Dataset[Any] | Tensor | None = None,
    *,
    budget: int,
    sigma_1: float | None = None,
    shape: Sequence[int] | None = None,
    sigma_L: float = 0.01,
    overlap: float = 0.5,
    levels: int | None = None,
    denoise: bool = True,
    subsample: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> SamplingPlan:
    """Plan annealed Langevin dynamics by the techniques of Song and Ermon (2020).

    sigma_1 is the largest distance between two samples (Technique 1); the ladder is geometric with as many levels as
    bring the overlap of neighbours nearest to ``overlap`` (Technique 2); every level has as many updates as the budget
    allows, and the step size is the one that leaves levels with a variance nearest to sigma_i^2 (Technique 4).

    Args:
        dataset: the data, as for :func:`fastlangevin.advisor.largest_distance`; or give ``sigma_1`` and ``shape``.
        budget: score evaluations for a sample.
        sigma_1: the largest noise level, in units of the data; by default the largest distance between two samples of
            ``dataset``.
        shape: of one sample, without the batch, where there is no ``dataset``.
        sigma_L: the smallest noise level. 0.01 is for images in [0, 1].
        overlap: C of neighbouring levels. The published ladders have 0.566 to 0.567.
        levels: the number of levels, instead of ``overlap``.
        denoise: end with the denoise step, one evaluation.
        subsample: samples among which the largest distance is sought; by default all.
        seed: of the subsample.
        memory: bytes to use for it beside the data.
        device: where distances are computed.
        progress: show a progress bar for it.

    Returns:
        A :class:`SamplingPlan`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the budget does not suffice for one update a level; the message says
            what does.
    """
    allowed = integer("budget", budget, 1, MAX_STEPS)
    seed, memory = integer("seed", seed, 0, MAX_SEED), integer("memory", memory, 1, 2**62)
    if subsample is not None:
        subsample = integer("subsample", subsample, 2, MAX_SAMPLE_ID)
    source = _source(dataset)
    D = _elements(source, shape)
    low = positive("sigma_L", sigma_L)
    # Before the long work, which a bad argument is not to wait for.
    levels_of = _levels_of(levels, overlap, D)
    notes = []
    if sigma_1 is not None:
        high, low = ends("sigma_1", sigma_1, "sigma_L", low)
    elif source is None:
        raise ValueError(NOTHING)
    else:
        high = largest_distance(source, subsample=subsample, seed=seed, memory=memory, device=device, progress=progress)
        if high <= low:
            raise ValueError(
                f"the largest distance of two samples, {high:g}, must be above sigma_L = {low:g}; give a smaller "
                "sigma_L=, or sigma_1= of your own"
            )
        if subsample is not None and subsample < len(source):
            notes.append(f"sigma_1 is the largest distance among {subsample} of {len(source)} samples, a lower bound")
    count = levels_of(high / low)
    steps = (allowed - bool(denoise)) // count
    if steps < 1:
        raise ValueError(_too_small(allowed, count, bool(denoise), high / low, D))
    gamma = _ratio(high / low, count)
    sigmas = geometric_sigmas(high, low, count)
    size = step_size_for(gamma, sigma_L=low, steps_per_level=steps)
    C = spacing.overlap(gamma, D)
    final = final_variance_ratio(sigmas, step_lr=size.step_lr, steps_per_level=steps)
    return SamplingPlan(
        sigmas=sigmas,
        sigma_1=high,
        sigma_L=low,
        gamma=gamma,
        levels=count,
        D=D,
        C=C,
        steps_per_level=steps,
        step_lr=size.step_lr,
        epsilon=size.epsilon,
        R=size.R,
        final_R=final,
        denoise=bool(denoise),
        budget=allowed,
        evaluations=count * steps + bool(denoise),
        notes=(*notes, *_warnings(C, final, high / low, D)),
    )


def _source(dataset: Any) -> Source | None:
    if dataset is None:
        return None
    from fastlangevin.data.source import as_source  # with fastlangevin.data comes Pillow, which an import must not load

    return as_source(dataset)


def _elements(source: Source | None, shape: Any) -> int:
    """D, from the data or the shape of a sample."""
    if source is not None:
        if shape is not None:
            raise ValueError(f"shape is for a plan without data; leave shape={shown(shape)} out")
        return math.prod(source.shape)
    if shape is None:
        raise ValueError(NOTHING)
    D = elements_per_sample((1, *sizes(shape)))
    if not D:
        raise ValueError(f"shape must be of a sample with at least one element, got {tuple(shape)}")
    return D


def _levels_of(levels: Any, overlap: Any, D: int) -> Callable[[float], int]:
    """Returns how many levels a ladder takes, as a function of sigma_1 / sigma_L."""
    if levels is not None:
        count = integer("levels", levels, 2, 10**6)
        return lambda span: count
    excess = spacing.excess_for(D, overlap, "overlap")
    return lambda span: spacing.nearest_levels(span, excess)


def _ratio(span: float, levels: int) -> float:
    return math.exp(math.log(span) / (levels - 1))


def _too_small(budget: int, levels: int, denoise: bool, span: float, D: int) -> str:
    least = levels + denoise
    said = (
        f"budget = {budget} is too small: {levels} levels take {least} score evaluations or more, one a level"
        f"{' and the denoise step' if denoise else ''}; give budget={least}"
    )
    fits = budget - denoise
    if fits < 2:
        return f"{said} or more"
    return (
        f"{said} or more, or levels={fits}, which fits, with overlap C = {spacing.overlap(_ratio(span, fits), D):.2g}"
    )


def _warnings(C: float, final: float, span: float, D: int) -> list[str]:
    warnings = []
    if C < SMALL_OVERLAP:
        usual = spacing.nearest_levels(span, spacing.excess_for(D, 0.5))
        warnings.append(f"neighbouring levels hardly overlap, and chains may lose their way; {usual} have C = 0.5")
    if final > WIDE:
        warnings.append(
            "samples come out much too wide; a larger budget, or corrector='ou' (--corrector ou), mends that"
        )
    return warnings
