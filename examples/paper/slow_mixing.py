"""Slow mixing of Langevin dynamics (section 3.2.2 and figure 3 of the paper).

Between its two components the toy distribution has next to no density, and the score in either does not depend on their
weights: plain Langevin dynamics ends in whichever component is nearer. Annealed, the first levels are so wide that the
components are one, and chains choose between them while the noise goes down. Scores are exact.

What chains of the paper's 10 levels have in the lower left follows what each level has there, and stays behind once
crossings get rare, near sigma = 4: 0.218 is left for 0.2. With sixteen times as many levels they get to 0.2.

A level's score is that of the data perturbed by its noise, components of variance 1 + sigma^2, and samples have the
variance 2 of the last level. The published code has sigma^2 there, another density, the data's own at its last level;
its weights are in the numbers beside ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import fastlangevin as fl
from examples.paper.drawing import DATA, NOISY, OTHER, PLAIN, canvas, square
from examples.paper.experiment import Check, Experiment, Outcome
from examples.paper.toy import BOX, EPSILON, LADDER, MEANS, TOY, WEIGHTS, interval, lower_left, scattered

SHOWN = 1280  # points of a panel, the paper's number of samples
FRAMES = 50


@dataclass(frozen=True)
class Sizes:
    chains: int = 100_000
    steps_per_level: int = 100
    finer: int = 16  # how many levels for each of the paper's


def at_equilibrium(sigma: float) -> float:
    """The mass of the data perturbed by ``sigma`` that is nearer to the mean of weight 1/5."""
    distance = math.dist(*MEANS) / 2
    across = (1 - math.erf(distance / math.sqrt(2 * (1 + sigma**2)))) / 2
    return WEIGHTS[0] * (1 - across) + WEIGHTS[1] * across


def run(sizes: Sizes, progress: bool) -> Outcome:
    n, steps = sizes.chains, sizes.steps_per_level * len(LADDER)
    begun = scattered(n, seed=0)
    beginning = lower_left(begun).item()
    fine = fl.geometric_sigmas(LADDER[0].item(), LADDER[-1].item(), sizes.finer * len(LADDER))
    # Perturbed by sigma, components of this have the variance sigma^2.
    published = fl.GaussianMixture(WEIGHTS, MEANS, 1e-12)

    every: dict[str, Any] = {"epsilon": EPSILON, "seed": 1, "full_output": True, "progress": progress}
    chain = {"init": begun, "steps_per_level": sizes.steps_per_level, "trajectory": steps // FRAMES, **every}
    states = {
        "i.i.d.": TOY.sample(n, seed=2)[None],
        "langevin": fl.langevin(TOY, begun, steps=steps, trajectory=steps // FRAMES, **every).trajectory,
        "annealed": fl.annealed_langevin(TOY, LADDER, **chain).trajectory,
        "annealed_published_score": fl.annealed_langevin(published, LADDER, **chain).trajectory,
    }
    chain["trajectory"] *= sizes.finer
    states["annealed_finer"] = fl.annealed_langevin(TOY, fine, **chain).trajectory
    along = {name: lower_left(each) for name, each in states.items()}
    share = {name: each[-1].item() for name, each in along.items()}
    # Three standard deviations of a share.
    around = 3 * math.sqrt(WEIGHTS[0] * WEIGHTS[1] / n)
    return Outcome(
        numbers={
            "perturbed_score": "components of variance 1 + sigma^2",
            "ladder": LADDER.tolist(),
            "epsilon": EPSILON,
            "steps": {"langevin": steps, "annealed": steps, "annealed_finer": steps * sizes.finer},
            "lower_left_at_the_beginning": beginning,
            "lower_left": share,
            "interval_of_95_percent": {name: interval(each, n) for name, each in share.items()},
            "lower_left_at_equilibrium_of_the_levels": [at_equilibrium(sigma) for sigma in LADDER.tolist()],
            "variance_of_a_component": {name: variance(each[-1]) for name, each in states.items()},
        },
        checks=[
            Check(
                f"weight of the component of 1/5, annealed over {len(LADDER)} levels",
                share["annealed"],
                WEIGHTS[0] - 0.04,
                WEIGHTS[0] + 0.04,
                "Langevin dynamics",
                share["langevin"],
            ),
            Check(
                f"the same, over {len(fine)} levels",
                share["annealed_finer"],
                WEIGHTS[0] - around,
                WEIGHTS[0] + around,
                "Langevin dynamics",
                share["langevin"],
            ),
            Check(
                "how far Langevin dynamics takes that weight from its beginning",
                abs(share["langevin"] - beginning),
                0.0,
                0.02,
                "annealed",
                abs(share["annealed"] - beginning),
            ),
        ],
        figure=draw(states, along, n, sizes.finer),
    )


def variance(x: Tensor) -> float:
    """Of the coordinates of the heavier component."""
    return x[x.sum(1) > 0].var(0).mean().item()


def draw(states: dict[str, Tensor], along: dict[str, Tensor], n: int, finer: int) -> Figure:
    figure = canvas(14, 3.8)
    *panels, last = figure.subplots(1, 4)
    styles = {
        "i.i.d.": (DATA, "i.i.d. samples"),
        "langevin": (PLAIN, "Langevin dynamics"),
        "annealed": (NOISY, "annealed Langevin dynamics"),
    }
    for axes, (name, (colour, title)) in zip(panels, styles.items(), strict=True):
        square(axes, title, BOX + 2)
        x = states[name][-1, :SHOWN].numpy()
        axes.scatter(x[:, 0], x[:, 1], s=4, color=colour, linewidths=0, alpha=0.6)
        low, high = interval(along[name][-1].item(), n)
        axes.text(5, -0.4, f"{1 - high:.3f} to {1 - low:.3f}", ha="center", fontsize=9)
        axes.text(-5, -0.4, f"{low:.3f} to {high:.3f}", ha="center", fontsize=9)
    last.axhline(WEIGHTS[0], color=DATA, linestyle="--", linewidth=1, label="weight of the data")
    lines = (
        ("langevin", PLAIN, "Langevin"),
        ("annealed", NOISY, f"annealed, {len(LADDER)} levels"),
        ("annealed_finer", OTHER, f"annealed, {finer} times as many"),
    )
    for name, colour, label in lines:
        last.plot(torch.linspace(0, 100, len(along[name])).numpy(), along[name].numpy(), color=colour, label=label)
    # On the ladder, which is geometric, sigma is a function of the place.
    first, low = LADDER[0].item(), LADDER[-1].item()
    place = torch.linspace(0, 1, 101)
    level = [at_equilibrium(first * (low / first) ** each) for each in place.tolist()]
    last.plot((100 * place).numpy(), level, color=DATA, linestyle=":", label="mass at equilibrium")
    last.set(title="share of chains in the lower left", xlabel="% of the updates", xlim=(0, 100), ylim=(0, 0.85))
    last.legend(loc="upper right", fontsize=8, ncols=1)
    last.set_box_aspect(1)
    return figure


EXPERIMENT = Experiment(
    "slow-mixing",
    "Langevin dynamics forgets the weights of two components, annealed Langevin dynamics finds them",
    run,
    Sizes(),
    Sizes(chains=2000, finer=2),
)
