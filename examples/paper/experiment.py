"""What an experiment is: sizes, a run, claims with controls, a picture and numbers."""

from __future__ import annotations

import io
import json
import math
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.timing import processor
from fastlangevin.storage.files import write_whole

DIGITS = 6  # of the numbers written


@dataclass(frozen=True)
class Check:
    """A claim: a number within bounds, and the same number of something else, for which the claim is false.

    Attributes:
        claim: what the number is and what it shows.
        value: the number.
        low, high: its bounds.
        control: what else it was taken of.
        of_control: the number there, which must be outside of the bounds.
    """

    claim: str
    value: float
    low: float
    high: float
    control: str
    of_control: float

    def failure(self) -> str | None:
        """What is wrong, None if nothing is. NaN is outside of all bounds."""
        bounds = f"{self.low:.5g} to {self.high:.5g}"
        if not self.low <= self.value <= self.high:
            return f"{self.claim}: {self.value:.5g} is not within {bounds}"
        if self.low <= self.of_control <= self.high:
            return f"{self.claim}: {self.control} passes as well ({self.of_control:.5g}, within {bounds})"
        return None


@dataclass(frozen=True)
class Outcome:
    numbers: dict[str, Any]
    checks: list[Check]
    figure: Figure

    def failures(self) -> list[str]:
        return [failure for check in self.checks if (failure := check.failure())]


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper.

    Attributes:
        name: of the command and of the files.
        about: one line.
        run: ``run(sizes, progress)``.
        full, short: sizes, a dataclass of numbers: for the results and for the tests.
    """

    name: str
    about: str
    run: Callable[[Any, bool], Outcome]
    full: Any
    short: Any


def perform(experiment: Experiment, out: Path, *, short: bool = False, progress: bool = False) -> Outcome:
    """Run an experiment on one thread and write NAME.png and NAME.json into the folder ``out``, which is made.

    The order of sums in matrix products depends on the number of threads, the picture and the numbers would with it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of networks' weights alone; all else is drawn by address
            outcome = experiment.run(experiment.short if short else experiment.full, progress)
    finally:
        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"{experiment.name}.png", png(outcome.figure))
    write_whole(
        out / f"{experiment.name}.json",
        (json.dumps(record(experiment, outcome, short), indent=1, allow_nan=False) + "\n").encode(),
    )
    return outcome


def record(experiment: Experiment, outcome: Outcome, short: bool) -> dict[str, Any]:
    """The contents of NAME.json. What the numbers depend on is in it, dates and times are not."""
    contents: dict[str, Any] = rounded(
        {
            "experiment": experiment.name,
            "sizes": asdict(experiment.short if short else experiment.full),
            "numbers": outcome.numbers,
            "checks": [{**asdict(check), "holds": check.failure() is None} for check in outcome.checks],
            "made_with": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "processor": processor(),
            },
        }
    )
    return contents


def rounded(value: Any) -> Any:
    """Floats to a few digits, in dictionaries and lists too; None, JSON's null, for what is not finite: no bound."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value


def png(figure: Figure) -> bytes:
    """The picture as a PNG file of a palette of 256 colours, a third of the size of one without."""
    drawn, encoded = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    with Image.open(drawn) as image:
        palette = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    palette.save(encoded, format="PNG", optimize=True)
    return encoded.getvalue()
