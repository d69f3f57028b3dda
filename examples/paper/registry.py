"""The experiments by name, in the order of the paper."""

from __future__ import annotations

from examples.paper import film, ladder, low_density, manifold, objectives, slow_mixing
from examples.paper.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (manifold, low_density, slow_mixing, objectives, ladder, film)
}
