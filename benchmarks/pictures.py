"""Three pictures of a machine's results: time against size, speed-up against size, and the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Case
from benchmarks.writing import write_figure

__all__ = ["draw"]

ELEMENTWISE = {"step": "the update", "perturb": "perturbation", "dsm": "objective and gradient"}
COLOURS = {
    "published": "#8c564b",
    "eager": "#d62728",
    "eager in place": "#ff7f0e",
    "eager by hand": "#ff7f0e",  # in place, too; only the objective has it
    "torch.compile": "#9467bd",
    "compiled, aten": "#e377c2",
    "fused": "#1f77b4",
    "fused out=": "#17becf",
    "copy": "#7f7f7f",
}


def draw(folder: Path, found: dict[str, Sequence[Case]], conditions: str) -> None:
    """Writes time.png, speedup.png and roofline.png."""
    # A picture is drawn where no display is.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = {name: _most_threads(found[name]) for name in ELEMENTWISE if name in found}
    for file, panel in (("time", _time), ("speedup", _speedup)):
        figure = Figure(figsize=(4.2 * len(chosen), 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(chosen), squeeze=False)[0]
        for axes, (name, cases) in zip(panels, chosen.items(), strict=True):
            panel(axes, cases)
            axes.set_title(ELEMENTWISE[name], fontsize=10)
            axes.set_xlabel("elements")
            axes.grid(alpha=0.3)
        # The update has all providers.
        panels[0].legend(fontsize=7)
        figure.suptitle(conditions.split(": `")[0], fontsize=8)
        write_figure(folder / f"{file}.png", figure, 110)
    figure = Figure(figsize=(6.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    _roofline(figure.subplots(), chosen)
    figure.suptitle(conditions.split(": `")[0], fontsize=8)
    write_figure(folder / "roofline.png", figure, 110)


def _most_threads(cases: Sequence[Case]) -> list[Case]:
    """The fp32 cases with the most threads, by size."""
    threads = max(case["threads"] for case in cases)
    chosen = [case for case in cases if case["threads"] == threads and case["dtype"] == "float32" and case["elements"]]
    return sorted(chosen, key=lambda case: case["elements"])


def _series(cases: Sequence[Case], provider: str, key: str) -> tuple[list[int], list[float]]:
    there = [case for case in cases if provider in case["providers"]]
    return [case["elements"] for case in there], [case["providers"][provider][key] for case in there]


def _time(axes: Any, cases: Sequence[Case]) -> None:
    for provider, colour in COLOURS.items():
        sizes, medians = _series(cases, provider, "median")
        if sizes:
            axes.loglog(sizes, [each * 1e6 for each in medians], "o-", color=colour, label=provider, ms=3)
            axes.fill_between(
                sizes,
                [each * 1e6 for each in _series(cases, provider, "lower")[1]],
                [each * 1e6 for each in _series(cases, provider, "upper")[1]],
                color=colour,
                alpha=0.15,
                lw=0,
            )
    axes.set_ylabel("µs per call, median and quartiles")


def _speedup(axes: Any, cases: Sequence[Case]) -> None:
    for provider, colour in COLOURS.items():
        if provider == "copy" or provider == cases[0]["base"]:
            continue
        there = [case for case in cases if provider in case["providers"] and case["base"] in case["providers"]]
        ratios = [case["providers"][provider]["median"] / case["providers"][case["base"]]["median"] for case in there]
        if there:
            axes.loglog([case["elements"] for case in there], ratios, "o-", color=colour, label=provider, ms=3)
    axes.axhline(1.0, color="black", lw=0.8)
    axes.set_ylabel(f"time / time of {cases[0]['base']}")


def _roofline(axes: Any, chosen: dict[str, list[Case]]) -> None:
    """Time an element against the bytes that an element moves: nothing can be below the copy's line."""
    slopes = [
        case["providers"]["copy"]["GB_per_s"]
        for cases in chosen.values()
        for case in cases[-1:]
        if "copy" in case["providers"]
    ]
    widest = 0.0
    for cases in chosen.values():
        largest = cases[-1]
        for provider, row in largest["providers"].items():
            if provider not in COLOURS or "GB_per_s" not in row:
                continue
            bytes_an_element = row["GB_per_s"] * row["ns_per_element"]
            widest = max(widest, bytes_an_element)
            axes.semilogy(bytes_an_element, row["ns_per_element"], "o", color=COLOURS[provider], ms=6)
    for provider, colour in COLOURS.items():
        axes.plot([], [], "o", color=colour, label=provider)
    if slopes:
        speed = sorted(slopes)[len(slopes) // 2]
        line = [widest * at / 100 for at in range(10, 111)]
        axes.plot(line, [each / speed for each in line], "k--", lw=1, label=f"memory: a copy's {speed:.0f} GB/s")
    axes.set_xlabel("bytes that an element must move: perturbation and copy 8, update 12, objective 16", fontsize=8)
    axes.set_ylabel("ns per element")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
