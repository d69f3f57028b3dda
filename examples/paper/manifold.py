"""Score matching on data that do not fill their space (section 3.2.1 and figure 1 of the paper).

Scikit-learn's digits stand for CIFAR-10. Three of their 64 pixels are always 0 and the others have 17 values, so that
their distribution has no density, and sliced score matching no minimum: s = -c x in such a pixel costs nothing on the
data, and its divergence goes to minus infinity with c. The loss falls without end, and what it changes by from a batch
to the next grows with it. With N(0, 0.0001) added, too little to be seen, it is bounded: its minimum is
-1/2 E||s||^2 >= -D / (2 * 0.0001).

The network's output is multiplied by 1/sigma = 100, the size of the scores, in both runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

import fastlangevin as fl
from examples.paper.drawing import NOISY, PLAIN, canvas
from examples.paper.experiment import Check, Experiment, Outcome
from examples.paper.training import fit, softplus_network
from fastlangevin import data

WINDOWS = 24


@dataclass(frozen=True)
class Sizes:
    steps: int = 6000
    batch: int = 128
    width: int = 128
    variance: float = 1e-4  # of the perturbation, the paper's
    lr: float = 1e-3


def train(images: Tensor, perturbed: bool, sizes: Sizes, progress: bool) -> Tensor:
    """The loss of every step."""
    net = softplus_network(images.shape[1], sizes.width)
    std = math.sqrt(sizes.variance)

    def loss(step: int) -> Tensor:
        picked = (fl.rand((sizes.batch, 1), seed=1, draw=step)[:, 0] * len(images)).long()
        x = images[picked]
        if perturbed:
            x = x + std * fl.randn(tuple(x.shape), seed=2, draw=step)
        return fl.losses.ssm_loss(lambda state: net(state) / std, x, seed=3, step=step)

    return fit(net, loss, sizes.steps, lr=sizes.lr, progress=progress, name="with noise" if perturbed else "no noise")


def windows(losses: Tensor) -> Tensor:
    """Losses (steps,) as (windows, steps of a window)."""
    length = len(losses) // WINDOWS
    return losses[-WINDOWS * length :].view(WINDOWS, length)


def level(losses: Tensor) -> Tensor:
    """Mean loss of each window."""
    return windows(losses).mean(1)


def fluctuation(losses: Tensor) -> Tensor:
    """Root mean square of the change from a step to the next, of each window."""
    return windows(losses).diff(dim=1).square().mean(1).sqrt()


def growth(values: Tensor) -> float:
    """The last eighth of the windows over the eighth after half time."""
    part = WINDOWS // 8
    return (values[-part:].mean() / values[WINDOWS // 2 : WINDOWS // 2 + part].mean()).item()


def run(sizes: Sizes, progress: bool) -> Outcome:
    images = data.digits("train").images.flatten(1)
    curves = {}
    for name, perturbed in (("none", False), ("noise", True)):
        torch.manual_seed(0)
        curves[name] = train(images, perturbed, sizes, progress)
    grown = {name: (growth(level(each)), growth(fluctuation(each))) for name, each in curves.items()}
    added = f"N(0, {sizes.variance:g}) added"
    measures = (
        (f"loss at the end over that at half time, {added}", 0.9, 1.3),
        (f"its change from step to step at the end over that at half time, {added}", 0.5, 1.5),
    )
    return Outcome(
        numbers={
            "constant_pixels": int((images.std(0) == 0).sum()),
            "growth_of_the_loss": {name: each[0] for name, each in grown.items()},
            "growth_of_its_change_in_a_step": {name: each[1] for name, each in grown.items()},
            "last_change_in_a_step": {name: fluctuation(each)[-1].item() for name, each in curves.items()},
            "lowest_loss": {name: each.min().item() for name, each in curves.items()},
            "bound_of_the_loss_with_noise": -images.shape[1] / (2 * sizes.variance),
            "loss_by_windows": {name: level(each).tolist() for name, each in curves.items()},
            "change_in_a_step_by_windows": {name: fluctuation(each).tolist() for name, each in curves.items()},
        },
        checks=[
            Check(claim, grown["noise"][at], low, high, "no noise", grown["none"][at])
            for at, (claim, low, high) in enumerate(measures)
        ],
        figure=draw(curves, sizes.variance),
    )


def draw(curves: dict[str, Tensor], variance: float) -> Figure:
    figure = canvas(12, 3.6)
    left, middle, right = figure.subplots(1, 3)
    styles = {"none": (PLAIN, "digits as they are"), "noise": (NOISY, f"digits + N(0, {variance:g})")}
    for axes, (name, (colour, title)) in zip((left, middle), styles.items(), strict=True):
        axes.plot(curves[name].numpy() / 1e3, color=colour, linewidth=0.5)
        axes.set(title=title, ylabel="sliced score matching loss / 1000")
        low = curves[name].min().item() / 1e3
        axes.set_ylim(1.05 * low, -0.1 * low)  # without the first losses, which are of random weights
    for name, (colour, title) in styles.items():
        values = fluctuation(curves[name])
        at = (torch.arange(len(values)) + 0.5) * (len(curves[name]) / len(values))
        right.plot(at.numpy(), values.numpy(), ".-", color=colour, label=title)
    right.set(title="how much the loss jumps", ylabel="change from a step to the next (rms)", yscale="log")
    right.legend(loc="lower right")
    for axes in (left, middle, right):
        axes.set(xlabel="iteration", xlim=(0, len(curves["none"])))
    return figure


EXPERIMENT = Experiment(
    "manifold",
    "sliced score matching on data confined to a subspace, without and with N(0, 0.0001) added",
    run,
    Sizes(),
    Sizes(steps=360, batch=64, width=32, variance=0.16, lr=6e-3),
)
