"""Timing by rounds: every provider once in each round, so that what slows the machine down slows them all.

Medians and quartiles of seconds a call. A call that is shorter than ``SHORTEST`` is repeated inside one measurement.
The timer synchronises the device around a measurement, not around each call.
"""

from __future__ import annotations

import datetime
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SHORTEST = 2e-3


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronise(device)
    return (time.perf_counter() - start) / repeats


def interleaved(
    calls: dict[str, Callable[[], object]], device: torch.device, *, rounds: int = 15, budget: float = 20.0
) -> dict[str, dict[str, float]]:
    """Median and quartiles of each call, in seconds.

    Args:
        calls: name to function. Each is warmed up before any is timed.
        device: synchronised around every measurement.
        rounds: measurements of each call, fewer where the budget ends first but never below 5.
        budget: seconds for all rounds together.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        once = min(seconds(call, 1, device) for _ in range(3))
        repeats[name] = max(1, round(SHORTEST / max(once, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    started = time.perf_counter()
    for done in range(rounds):
        if done >= 5 and time.perf_counter() - started > budget:
            break
        shuffle(order)
        for name in order:
            times[name].append(seconds(calls[name], repeats[name], device))
    return {name: summary(values) for name, values in times.items()}


def summary(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "lower": low, "upper": high, "rounds": len(values)}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Commit of the checkout, "-dirty" with changes, "unknown" outside git."""
    here = Path(__file__).parent
    try:
        text = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return text or "unknown"


def machine(device: torch.device) -> dict[str, Any]:
    """What a result must be read with: hardware, versions, commit and date."""
    import fastlangevin
    from fastlangevin import runtime

    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "fastlangevin": fastlangevin.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": processor(),
        "cores": torch.get_num_threads(),
        "implementations": runtime.explain(device.type),
    }
    try:
        import triton

        record["triton"] = triton.__version__
    except ImportError:
        record["triton"] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        record["gpu"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_GiB": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    else:
        from fastlangevin.kernels.cpp import native

        record["instruction_sets"] = native.instruction_sets()
    return record
