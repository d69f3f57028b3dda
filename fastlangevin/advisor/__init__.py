"""Advice on the ladder and the step size: Techniques 1, 2 and 4 of Song and Ermon (2020), combined into a plan."""

from fastlangevin.advisor.distance import largest_distance
from fastlangevin.advisor.planning import SamplingPlan, plan
from fastlangevin.advisor.spacing import levels_for, overlap, ratio_for_overlap
from fastlangevin.advisor.step_size import StepSize, final_variance_ratio, step_size_for, variance_ratio

__all__ = [
    "SamplingPlan",
    "StepSize",
    "final_variance_ratio",
    "largest_distance",
    "levels_for",
    "overlap",
    "plan",
    "ratio_for_overlap",
    "step_size_for",
    "variance_ratio",
]
