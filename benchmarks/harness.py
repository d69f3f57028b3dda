"""What a benchmark is, and how it is measured: providers side by side, each correct before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import extra_bytes
from benchmarks.timing import interleaved, machine
from benchmarks.writing import write_record

__all__ = ["DTYPES", "Benchmark", "Call", "Case", "Trial", "kept", "measure", "save", "table"]

Call = Callable[[], object]
Case = dict[str, Any]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass
class Trial:
    """The providers of one size.

    Attributes:
        title: what is done to what.
        calls: provider to call. A provider that cannot even be built is a call that raises.
        wrong: None where a provider's output is right, else what is wrong with it: asked before any is timed.
        base: the provider that the ratios are relative to.
        elements: of the result; 0 where a time for each element says nothing.
        touched: bytes that the algorithm must move, by provider; ``"copy"`` is the memory's own speed.
        memory: providers whose memory in use beyond their result is measured, with the bytes of that result.
        updates: of a loop, whose time is told for each.
        rounds: measurements at most.
    """

    title: str
    calls: dict[str, Call]
    wrong: Callable[[str], str | None]
    base: str
    elements: int = 0
    touched: dict[str, int] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    updates: int = 0
    rounds: int = 15


@dataclass(frozen=True)
class Benchmark:
    """A named set of trials.

    Attributes:
        name: as on the command line and of the file of results.
        about: its module's docstring.
        sizes: the standard sizes of each device, elements or images.
        trial: makes the trial of a kind, size, dtype and device; raises ValueError for a size that it cannot have.
        providers: their names, as the trials have them.
        kinds: what is measured at every size, such as the networks; one without a name where there is one.
        dtypes: the standard ones.
        threads: CPU threads that are measured.
        labels: providers as tables say them, where that is more than the name.
    """

    name: str
    about: str
    sizes: dict[str, tuple[int, ...]]
    trial: Callable[[str, int, torch.dtype, torch.device], Trial]
    providers: tuple[str, ...]
    kinds: tuple[str, ...] = ("",)
    dtypes: tuple[str, ...] = ("float32",)
    threads: tuple[int, ...] = (2,)
    labels: dict[str, str] = field(default_factory=dict)


def failure(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"


def kept(trial: Trial, wanted: Sequence[str] | None = None) -> tuple[dict[str, Call], dict[str, str]]:
    """The providers whose output is right, and what is wrong with the others."""
    calls: dict[str, Call] = {}
    there = ", ".join(trial.calls)
    failures = {name: f"no such provider; there are {there}" for name in wanted or () if name not in trial.calls}
    for name, call in trial.calls.items():
        if wanted and name not in wanted:
            continue
        try:
            why = trial.wrong(name)
            if why is None:
                call()
        except Exception as error:
            why = failure(error)
        if why is None:
            calls[name] = call
        else:
            failures[name] = why
    return calls, failures


def measure(trial: Trial, device: torch.device, budget: float, wanted: Sequence[str] | None = None) -> Case:
    """Times the providers of a trial, in interleaved rounds.

    Args:
        trial: what is measured.
        device: where.
        budget: seconds for all rounds together.
        wanted: providers; all by default.
    """
    calls, failures = kept(trial, wanted)
    extra = {name: extra_bytes(calls[name], device) for name in trial.memory if name in calls}
    rows: dict[str, dict[str, float]] = {}
    if calls:
        rows = interleaved(calls, device, rounds=trial.rounds, budget=budget)
    for name, row in rows.items():
        if trial.elements:
            row["ns_per_element"] = row["median"] / trial.elements * 1e9
        if name in trial.touched:
            row["GB_per_s"] = trial.touched[name] / row["median"] / 1e9
        if trial.updates:
            row["us_per_update"] = row["median"] / trial.updates * 1e6
        if name in extra:
            row["extra_results"] = extra[name] / trial.memory[name] - 1
    copy = rows.get("copy", {}).get("GB_per_s")
    for row in rows.values():
        if copy and "GB_per_s" in row:
            row["of_copy"] = row["GB_per_s"] / copy
    return {
        "case": trial.title,
        "base": trial.base,
        "elements": trial.elements,
        "providers": rows,
        "failures": failures,
    }


COLUMNS = {
    "us_per_update": ("µs/update", "{:.1f}"),
    "ns_per_element": ("ns/element", "{:.3f}"),
    "GB_per_s": ("GB/s", "{:.1f}"),
    "of_copy": ("of copy", "{:.1%}"),
    "extra_results": ("extra memory", "{:.2f}"),
}


def duration(seconds: float) -> str:
    scale, unit = next(
        (each for each in ((1.0, "s"), (1e-3, "ms")) if seconds >= each[0]),
        (1e-6, "µs"),
    )
    return f"{seconds / scale:.3g} {unit}" if seconds / scale < 100 else f"{seconds / scale:.0f} {unit}"


def table(case: Case) -> str:
    """A case as text: medians, quartiles, the ratio to its base, and whatever else was measured."""
    rows = case["providers"]
    base = rows.get(case["base"])
    columns = [name for name in COLUMNS if any(name in row for row in rows.values())]
    head = ["provider", "median", "quartiles", f"/ {case['base']}", *(COLUMNS[name][0] for name in columns)]
    lines = [head] if rows else []
    for name, row in rows.items():
        ratio = f"{row['median'] / base['median']:.2f}" if base else ""
        cells = [COLUMNS[column][1].format(row[column]) if column in row else "" for column in columns]
        quartiles = f"{duration(row['lower'])} .. {duration(row['upper'])}"
        lines.append([name, duration(row["median"]), quartiles, ratio, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    where = f"{case['threads']} thread(s)" if case["device"] == "cpu" else case["device"]
    text = [f"\n{case['case']}, {case['dtype']}, {where}"]
    for name, *cells in lines:
        text.append("  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    text += [f"{name}  not timed: {why}" for name, why in case["failures"].items()]
    return "\n".join(text)


def save(path: Path, name: str, device: torch.device, cases: list[Case], **more: object) -> None:
    """Writes results with the machine, the versions, the commit and the date."""
    record = {"benchmark": name, "machine": machine(device), **more, "cases": cases}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, record)
