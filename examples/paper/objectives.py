"""Denoising, sliced and implicit score matching on one distribution (sections 2.1 and 3.2.1 of the paper).

The same network from the same weights, as many steps on the same data. Sliced and implicit score matching learn the
score of the data, denoising score matching that of the data perturbed by sigma, here the last level of the toy ladder.
The control is implicit score matching without its trace, which learns no score.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import fastlangevin as fl
from examples.paper.drawing import DATA, DENSITY, NOISY, OTHER, PLAIN, canvas, square
from examples.paper.experiment import Check, Experiment, Outcome
from examples.paper.toy import BOX, LADDER, TOY, lattice
from examples.paper.training import fit, softplus_network

SIGMA = LADDER[-1].item()
SIDE = 160
ARROWS = 15
WATCHED = 60
Objective = Callable[[nn.Module, Tensor, int], Tensor]

OBJECTIVES: dict[str, Objective] = {
    "denoising": lambda net, x, step: fl.losses.single_dsm_loss(net, x, SIGMA, seed=1, step=step),
    "sliced": lambda net, x, step: fl.losses.ssm_loss(net, x, seed=1, step=step),
    "implicit": lambda net, x, step: fl.losses.ism_loss(net, x),
    "no_trace": lambda net, x, step: 0.5 * net(x).square().sum(1).mean(),
}
COLOURS = {"denoising": NOISY, "sliced": OTHER, "implicit": "tab:purple", "no_trace": PLAIN}
# What each learns the score of.
LEARNT = {"denoising": SIGMA, "sliced": 0.0, "implicit": 0.0, "no_trace": 0.0}


@dataclass(frozen=True)
class Sizes:
    steps: int = 6000
    batch: int = 128
    width: int = 128
    lr: float = 1e-3
    points: int = 20_000


def divergence(net: nn.Module, x: Tensor, sigma: float) -> float:
    """Mean squared distance from the score at ``sigma``, in units of its mean square, at points ``x``."""
    exact = TOY.score(x, sigma)
    with torch.no_grad():
        return ((net(x) - exact).square().sum() / exact.square().sum()).item()


def run(sizes: Sizes, progress: bool) -> Outcome:
    begun = softplus_network(2, sizes.width).state_dict()
    nets: dict[str, nn.Module] = {}
    curves: dict[str, list[float]] = {}
    points = {sigma: TOY.sample(sizes.points, seed=2, sigma=sigma) for sigma in (0.0, SIGMA)}
    every = max(1, sizes.steps // WATCHED)
    for name, objective in OBJECTIVES.items():
        nets[name] = softplus_network(2, sizes.width)
        nets[name].load_state_dict(begun)
        curves[name] = train(nets[name], objective, LEARNT[name], sizes, every, progress, name)
    own = {name: divergence(net, points[LEARNT[name]], LEARNT[name]) for name, net in nets.items()}
    data = {name: divergence(net, points[0.0], 0.0) for name, net in nets.items()}
    controls = {
        "denoising": ("measured from the score of the data themselves", data["denoising"]),
        "sliced": ("no trace", own["no_trace"]),
        "implicit": ("no trace", own["no_trace"]),
    }
    return Outcome(
        numbers={
            "sigma_of_denoising": SIGMA,
            "relative_error_from_what_it_learns": own,
            "relative_error_from_the_score_of_the_data": data,
            "steps_between_values": every,
            "relative_error_while_training": curves,
        },
        checks=[
            Check(f"relative squared error of {name} score matching", own[name], 0.0, 0.1, *control)
            for name, control in controls.items()
        ],
        figure=draw(nets, own, curves, every),
    )


def train(
    net: nn.Module, objective: Objective, sigma: float, sizes: Sizes, every: int, progress: bool, name: str
) -> list[float]:
    """The relative error every so many steps, at points of its own."""
    curve: list[float] = []
    watched = TOY.sample(2000, seed=3, sigma=sigma)

    def loss(step: int) -> Tensor:
        if step % every == 0:
            curve.append(divergence(net, watched, sigma))
        return objective(net, TOY.sample(sizes.batch, seed=0, draw=step), step)

    fit(net, loss, sizes.steps, lr=sizes.lr, progress=progress, name=name)
    return curve


def draw(nets: dict[str, nn.Module], own: dict[str, float], curves: dict[str, list[float]], every: int) -> Figure:
    figure = canvas(15, 3.3)
    first, *panels, last = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1))
    grid, coarse = lattice(SIDE), lattice(ARROWS)
    with torch.no_grad():
        field(first, "score of the data", TOY.log_prob(grid), coarse, TOY.score(coarse))
        for axes, name in zip(panels, ("denoising", "sliced", "implicit"), strict=True):
            sigma = LEARNT[name]
            title = f"{name}: error {own[name]:.3f}"
            field(axes, title, TOY.log_prob(grid, sigma), coarse, nets[name](coarse))
    for name, curve in curves.items():
        label = {"denoising": f"denoising, sigma {SIGMA:g}", "no_trace": "control: no trace"}.get(name, name)
        steps = [every * at for at in range(len(curve))]
        last.plot(steps, curve, color=COLOURS[name], label=label)
    last.set_box_aspect(1)
    last.set(title="relative squared error", xlabel="iteration", yscale="log")
    last.set(xlim=(0, every * len(curves["sliced"])))
    last.locator_params(axis="x", nbins=4)
    last.set_ylim(top=100)  # the legend stands above the curves
    last.legend(fontsize=8, loc="upper right")
    return figure


def field(axes: Any, title: str, log_density: Tensor, at: Tensor, arrows: Tensor) -> None:
    """Arrows on a density that is given on a square lattice."""
    side = math.isqrt(len(log_density))
    square(axes, title, BOX)
    axes.imshow(
        log_density.exp().view(side, side).numpy(),
        extent=(-BOX, BOX) * 2,
        origin="lower",
        cmap=DENSITY,
        interpolation="nearest",
    )
    axes.quiver(*at.T.numpy(), *arrows.T.numpy(), color=DATA, scale=120, width=0.005, pivot="mid")


EXPERIMENT = Experiment(
    "objectives",
    "denoising, sliced and implicit score matching on one distribution",
    run,
    Sizes(),
    Sizes(steps=300, width=64, points=2000, lr=4e-3),
)
