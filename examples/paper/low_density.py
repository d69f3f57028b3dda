"""Scores where there are no data (section 3.2.1 and figure 2 of the paper).

Score matching weighs its error by the density of the data, so that the estimate is good near the two means and free
elsewhere. The control learns the same score with the same network and as many steps from points that are uniform on the
square (explicit score matching): its error does not follow the density. What is missing is data, not capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import fastlangevin as fl
from examples.paper.drawing import DENSITY, ERROR, NOISY, PLAIN, canvas, square
from examples.paper.experiment import Check, Experiment, Outcome
from examples.paper.toy import BOX, TOY, lattice, scattered
from examples.paper.training import fit, softplus_network

BANDS = 12
SIDE = 160
ARROWS = 17


@dataclass(frozen=True)
class Sizes:
    steps: int = 10_000
    batch: int = 128
    width: int = 128
    lr: float = 1e-3


def errors(net: nn.Module, x: Tensor) -> Tensor:
    """Distance of the estimated from the exact score, ``(n,)``."""
    with torch.no_grad():
        return (net(x) - TOY.score(x)).norm(dim=1)


def bands(density: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of log density and of error over ``BANDS`` equal parts of the points, from the emptiest to the densest."""
    order = density.argsort()
    cut = len(order) // BANDS * BANDS
    level, mean = (each[order[:cut]].view(BANDS, -1).mean(1) for each in (density, error))
    return level, mean


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's, of values without ties."""
    ranks = torch.stack([each.argsort().argsort().double() for each in (first, second)])
    return torch.corrcoef(ranks)[0, 1].item()


def run(sizes: Sizes, progress: bool) -> Outcome:
    estimate, control = (softplus_network(2, sizes.width) for _ in range(2))
    control.load_state_dict(estimate.state_dict())
    n = sizes.batch
    fit(
        estimate,
        lambda step: fl.losses.ssm_loss(estimate, TOY.sample(n, seed=0, draw=step), seed=1, step=step),
        sizes.steps,
        lr=sizes.lr,
        progress=progress,
        name="sliced score matching",
    )

    def explicit(step: int) -> Tensor:
        return fl.losses.esm_loss(control, scattered(n, seed=2, draw=step), TOY.score)

    fit(control, explicit, sizes.steps, lr=sizes.lr, progress=progress, name="control")
    points, samples = scattered(20_000, seed=3), TOY.sample(20_000, seed=4)
    density = TOY.log_prob(points)
    figures: dict[str, dict[str, Any]] = {}
    for name, net in (("estimate", estimate), ("control", control)):
        error = errors(net, points)
        level, mean = bands(density, error)
        figures[name] = {
            "rank_correlation": rank_correlation(density, error),
            "emptiest_over_densest_band": (mean[0] / mean[-1]).item(),
            "mean_error_on_the_square": error.mean().item(),
            "mean_error_on_data": errors(net, samples).mean().item(),
            "log_density_of_bands": level.tolist(),
            "mean_error_of_bands": mean.tolist(),
        }
    found, other = figures["estimate"], figures["control"]
    return Outcome(
        numbers={"mean_score_on_data": TOY.score(samples).norm(dim=1).mean().item(), **figures},
        checks=[
            Check(
                "rank correlation of error and density, trained on data",
                found["rank_correlation"],
                -1.0,
                -0.6,
                "trained on the whole square",
                other["rank_correlation"],
            ),
            Check(
                "error in the emptiest twelfth of the square over that in the densest, trained on data",
                found["emptiest_over_densest_band"],
                10.0,
                float("inf"),
                "trained on the whole square",
                other["emptiest_over_densest_band"],
            ),
            Check(
                "mean error where the data are, trained on data",
                found["mean_error_on_data"],
                0.0,
                0.5,
                "the same network on the whole square",
                found["mean_error_on_the_square"],
            ),
        ],
        figure=draw(estimate, figures),
    )


def draw(estimate: nn.Module, figures: dict[str, dict[str, Any]]) -> Figure:
    figure = canvas(15, 3.9)
    left, middle, right, last = figure.subplots(1, 4)
    grid, coarse = lattice(SIDE), lattice(ARROWS)
    density = TOY.log_prob(grid).exp().view(SIDE, SIDE).numpy()
    with torch.no_grad():
        fields = (("score of the data", TOY.score(coarse)), ("estimate: sliced score matching", estimate(coarse)))
    for axes, (title, field) in zip((left, middle), fields, strict=True):
        square(axes, title, BOX)
        axes.imshow(density, extent=(-BOX, BOX) * 2, origin="lower", cmap=DENSITY, interpolation="nearest")
        x, arrow = coarse.numpy(), field.numpy()
        axes.quiver(x[:, 0], x[:, 1], arrow[:, 0], arrow[:, 1], scale=150, width=0.004, pivot="mid")
    square(right, "distance of the two", BOX)
    error = errors(estimate, grid).view(SIDE, SIDE).numpy()
    picture = right.imshow(error, extent=(-BOX, BOX) * 2, origin="lower", cmap=ERROR, interpolation="nearest")
    right.contour(density, extent=(-BOX, BOX) * 2, levels=[1e-3, 1e-2, 1e-1], colors="white", linewidths=0.7)
    figure.colorbar(picture, ax=right, fraction=0.046, pad=0.03)
    for name, colour, label in (
        ("estimate", PLAIN, "trained on data"),
        ("control", NOISY, "trained on the whole square"),
    ):
        last.plot(
            figures[name]["log_density_of_bands"], figures[name]["mean_error_of_bands"], "o-", color=colour, label=label
        )
    last.set(title="mean distance by density", xlabel="log density", yscale="log")
    last.set_ylim(top=40)  # the legend stands above the curves
    last.legend(fontsize=9, loc="upper right")
    last.set_box_aspect(1)
    return figure


EXPERIMENT = Experiment(
    "low-density",
    "an estimated score is wrong where there are few data",
    run,
    Sizes(),
    Sizes(steps=600, width=64, lr=5e-3),
)
