"""Samples of a trained network (section 5 of the paper), on 8x8 digits.

The network that ships with the package, trained by denoising score matching over ten levels from 1 to 0.01. Annealing
as a film, a frame after each level; completions of half digits that the network has not seen (the paper's Algorithm 2);
the nearest training images of samples; and rows of samples that share their noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import fastlangevin as fl
from examples.paper.drawing import canvas
from examples.paper.experiment import Check, Experiment, Outcome
from fastlangevin import data, pictures
from fastlangevin.storage import checkpoint

FRAMES = 11
ROWS = 5  # of each part of the picture
ACROSS = 10


@dataclass(frozen=True)
class Sizes:
    samples: int = 100
    halves: int = 50  # held-out digits to complete
    completions: int = 8  # of each
    rows: int = 20  # of interpolations
    steps_per_level: int = 50


def distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x.flatten(1).double(), y.flatten(1).double())


def agreement(lower: Tensor, classes: Tensor, training: data.Images) -> float:
    """Share of lower halves whose nearest lower half of a training image is of the class given."""
    nearest = distances(lower, training.images[:, :, 4:]).argmin(1)
    return (training.classes[nearest] == classes).double().mean().item()


def spread(completed: Tensor, rows: slice) -> float:
    """Standard deviation over the completions of a digit, ``(digits, completions, 1, 8, 8)``, some rows of pixels."""
    return completed[..., rows, :].var(1).mean().sqrt().item()


def run(sizes: Sizes, progress: bool) -> Outcome:
    with as_file(files("fastlangevin") / "assets" / "digits.safetensors") as path:
        shipped = checkpoint.load(path)
    training, heldout = data.digits("train"), data.digits("heldout")
    chain: dict[str, Any] = {
        "epsilon": shipped.metadata["sampling"]["epsilon"],
        "steps_per_level": sizes.steps_per_level,
        "denoise": True,
        "progress": progress,
    }
    frames = len(shipped.sigmas) * sizes.steps_per_level // (FRAMES - 1)
    with torch.no_grad():
        result = fl.annealed_langevin(
            shipped.net,
            shipped.sigmas,
            shape=(sizes.samples, 1, 8, 8),
            seed=0,
            trajectory=frames,
            full_output=True,
            **chain,
        )
        samples, film = result.samples, torch.cat([result.trajectory[:-1], result.samples[None]])
        truth, classes = heldout.images[: sizes.halves], heldout.classes[: sizes.halves]
        mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        mask[:, :, :4] = True
        known = truth.repeat_interleave(sizes.completions, 0)
        painted = fl.annealed_langevin(
            shipped.net,
            shipped.sigmas,
            shape=tuple(known.shape),
            seed=1,
            inpainting=fl.Inpainting(mask, known),
            **chain,
        )
        rows = fl.interpolation(
            shipped.net, shipped.sigmas, points=ACROSS, shape=(sizes.rows, 1, 8, 8), seed=2, **chain
        )
    completed = painted.view(sizes.halves, sizes.completions, 1, 8, 8)
    rows = rows.view(sizes.rows, ACROSS, 1, 8, 8)
    apart = distances(samples, samples)[torch.triu_indices(sizes.samples, sizes.samples, 1).unbind()].mean().item()
    neighbours = (rows[:, 1:] - rows[:, :-1]).flatten(2).norm(dim=2).mean().item()
    ends = (rows[:, -1] - rows[:, 0]).flatten(1).norm(dim=1).mean().item()
    real = distances(heldout.images, training.images).amin(1).median().item()
    nearest = distances(samples, training.images)

    def novelty(images: Tensor) -> float:
        return distances(images, training.images).amin(1).median().item() / real

    copies = training.images[: sizes.samples]
    copies = copies + shipped.sigmas[-1].item() * fl.randn(tuple(copies.shape), seed=3)
    lower = painted[:, :, 4:]
    right = agreement(lower, classes.repeat_interleave(sizes.completions), training)
    # Completions beside the digits half way down the list.
    wrong = agreement(lower, classes.roll(sizes.halves // 2).repeat_interleave(sizes.completions), training)
    return Outcome(
        numbers={
            "median_distance_to_training_of_heldout_digits": real,
            "the_same_over_it": {
                "samples": novelty(samples),
                "copies": novelty(copies),
                "uniform_noise": novelty(film[0]),
            },
            "lower_halves_of_the_right_class": {
                "completed": right,
                "of_another_digit": wrong,
                "true_halves": agreement(truth[:, :, 4:], classes, training),
            },
            "spread_of_completions": {"unknown": spread(completed, slice(4, 8)), "known": spread(completed, slice(4))},
            "distance_in_rows": {"neighbours": neighbours, "ends": ends, "independent_samples": apart},
        },
        checks=[
            Check(
                "distance of samples to training images over that of held-out digits: as near",
                novelty(samples),
                0.0,
                1.3,
                "uniform noise",
                novelty(film[0]),
            ),
            Check("the same: no copies", novelty(samples), 0.7, float("inf"), "copies", novelty(copies)),
            Check(
                "share of completions whose lower half is of the class of the upper",
                right,
                0.3,  # three times chance
                1.0,
                "of the class of another digit",
                wrong,
            ),
            Check(
                "standard deviation over completions in the half to complete",
                spread(completed, slice(4, 8)),
                0.05,
                1.0,
                "in the known half",
                spread(completed, slice(4)),
            ),
            Check(
                "distance of neighbours in a row over that of independent samples",
                neighbours / apart,
                0.0,
                0.6,
                "of the ends of a row",
                ends / apart,
            ),
        ],
        figure=draw(film, truth, completed, samples, training.images[nearest.argmin(1)], rows),
    )


def draw(film: Tensor, truth: Tensor, completed: Tensor, samples: Tensor, nearest: Tensor, rows: Tensor) -> Figure:
    hidden = truth[:ROWS].clone()
    hidden[:, :, 4:] = 0.5
    inpainted = torch.cat([truth[:ROWS, None], hidden[:, None], completed[:ROWS, : ACROSS - 2]], 1)
    pairs = [tiles(torch.stack([samples[at], nearest[at]])) for at in torch.arange(2 * ACROSS).split(ACROSS)]
    gap = np.full((24, pairs[0].shape[1]), 255, dtype=np.uint8)
    figure = canvas(11, 6.4)
    for axes, (title, picture) in zip(
        figure.subplots(2, 2).flat,
        (
            ("annealing: noise, then after each level", tiles(film[:, :ROWS].transpose(0, 1))),
            ("true, known half, completions", tiles(inpainted)),
            ("samples, below each its nearest training image", np.vstack([pairs[0], gap, pairs[1]])),
            ("interpolation: rows that share their noise", tiles(rows[:ROWS])),
        ),
        strict=True,
    ):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(title=title)
        axes.set_axis_off()
    return figure


def tiles(images: Tensor) -> pictures.Image:
    """Images in rows, ``(rows, columns, 1, 8, 8)``, as one, uint8 ``(height, width)``."""
    return pictures.grid(images.flatten(0, 1), columns=images.shape[1])[:, :, 0]


EXPERIMENT = Experiment(
    "film",
    "digits: annealing, inpainting, nearest neighbours, interpolation",
    run,
    Sizes(),
    Sizes(samples=20, halves=12, completions=4, rows=3, steps_per_level=20),
)
