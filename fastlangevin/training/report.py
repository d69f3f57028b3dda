"""Progress of a run: a bar, lines of JSON, a picture of curves, grids of samples, and TensorBoard if installed."""

from __future__ import annotations

import inspect
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin.pictures import grid, save_png
from fastlangevin.samplers import annealed_langevin
from fastlangevin.storage.container import check_json
from fastlangevin.storage.files import write_whole

__all__ = ["Bar", "Board", "check_sampling", "draw_curves", "draw_samples"]

logger = logging.getLogger("fastlangevin")

# What the pictures of a run have of the run, and what changes the sampler's result.
RESERVED = {
    "callback",
    "device",
    "full_output",
    "generator",
    "resume",
    "score",
    "seed",
    "shape",
    "sigmas",
    "telemetry",
    "trajectory",
}


class Bar:
    """A tqdm bar that counts samples and shows the loss; does nothing where it is not wanted.

    Args:
        total: samples of the whole run.
        done: of them before this part of it.
        wanted: whether to show it.
    """

    def __init__(self, total: int, done: int, wanted: bool) -> None:
        self.bar = None
        if wanted:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=total, initial=done, unit=" images", unit_scale=True, desc="training")

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, samples: int) -> None:
        if self.bar is not None:
            self.bar.update(samples)

    def show(self, loss: float) -> None:
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    @property
    def speed(self) -> float | None:
        """Samples a second, lately."""
        return None if self.bar is None else self.bar.format_dict["rate"]


class Board:
    """TensorBoard's event files in ``folder/tensorboard``; nothing where TensorBoard is not installed.

    Args:
        folder: of the run.
        done: steps that were done before; what an earlier part of the run told of later ones is taken back.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        except Exception as error:  # one that does not fit the installed protobuf or NumPy raises what it likes
            logger.warning("TensorBoard is installed but cannot be used: %s", error)
            return
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, line: dict[str, Any], speed: float | None) -> None:
        """Enters a line of the log, and the samples a second."""
        if self.writer is None:
            return
        for name in ("loss", "lr", "gradient_norm"):
            if line[name] is not None:
                self.writer.add_scalar(name, line[name], line["step"])
        for level, mean in enumerate(line.get("levels", ())):
            if mean is not None:
                self.writer.add_scalar(f"level/{level}", mean, line["step"])
        if speed is not None:
            self.writer.add_scalar("samples_per_second", speed, line["step"])


def draw_curves(path: Path, lines: list[dict[str, Any]]) -> None:
    """A picture of the log: loss and gradient norm over steps, and the loss of each level, first lines against last.

    It needs matplotlib; without it there is no picture, and a note in the log.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.info('no curves are drawn: matplotlib is not installed; pip install "fastlangevin[train]"')
        return
    if not lines:
        return
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    steps = [line["step"] for line in lines]
    left, middle, right = figure.subplots(1, 3)
    left.plot(steps, [line["loss"] for line in lines])
    left.set(title="loss", xlabel="step")
    middle.plot(steps, [line["gradient_norm"] or float("nan") for line in lines], color="tab:orange")
    middle.set(title="gradient norm", xlabel="step", yscale="log")
    if "levels" in lines[-1]:
        tenth = max(1, len(lines) // 10)
        for label, some in (("first tenth", lines[:tenth]), ("last tenth", lines[-tenth:])):
            right.plot(*_by_level(some), marker=".", label=label)
        right.set(title="loss of a level", xlabel="level (0 = largest sigma)")
        right.legend()
    else:
        right.set_axis_off()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    write_whole(path, picture.getvalue())


def _by_level(lines: list[dict[str, Any]]) -> tuple[list[int], list[float]]:
    """Levels that had samples, and their mean losses."""
    levels, means = [], []
    for level in range(len(lines[0]["levels"])):
        counts = [line["samples"][level] for line in lines]
        if sum(counts):
            sums = [line["levels"][level] * count for line, count in zip(lines, counts, strict=True) if count]
            levels.append(level)
            means.append(sum(sums) / sum(counts))
    return levels, means


def check_sampling(sampling: Mapping[str, Any], sigmas: Tensor, shape: Sequence[int], device: torch.device) -> None:
    """Raises unless pictures of samples can be drawn with these options: at the start of a run, not after hours.

    Args:
        sampling: options of :func:`fastlangevin.annealed_langevin`.
        sigmas: ladder ``(L,)``.
        shape: of a sample.
        device: where they are drawn.
    """
    check_json("sampling", sampling)
    given = sorted(RESERVED & sampling.keys())
    if given:
        raise ValueError(
            f"sampling must leave {', '.join(given)} out: a run draws its pictures with its own; give other options of "
            "annealed_langevin, such as epsilon and steps_per_level"
        )
    inspect.signature(annealed_langevin).bind(None, sigmas, **sampling)
    # Those that depend on the network are left for the first picture.
    options = {name: value for name, value in sampling.items() if name not in ("chain", "matmul", "cuda_graph")}
    annealed_langevin(
        lambda x, labels: torch.zeros_like(x),
        sigmas,
        shape=(1, *shape),
        seed=0,
        device=device,
        callback=lambda _: True,
        **{"non_finite": None, **options},
    )


def draw_samples(path: Path, samples: Tensor, notes: dict[str, Any]) -> None:
    """A grid of images in [0, 1], ``(N, 1 or 3, H, W)``."""
    save_png(path, grid(samples), notes)
