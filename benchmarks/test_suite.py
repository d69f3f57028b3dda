"""The suite under pytest-benchmark: ``pytest benchmarks --benchmark-only -k step``.

One provider a test, so that rounds are not interleaved: for a look at one of them, and for pytest-benchmark's own
comparisons between commits. ``python -m benchmarks.suite`` is what results are made with.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
import torch

from benchmarks.harness import DTYPES, Trial, kept
from benchmarks.suite import BENCHMARKS
from benchmarks.timing import SHORTEST, machine, seconds, synchronise

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds once the device is done: read around all iterations of a round, not around each."""
    synchronise(DEVICE)
    return time.perf_counter()


pytestmark = [pytest.mark.benchmark(timer=now), pytest.mark.filterwarnings("default")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "provider" in metafunc.fixturenames:
        metafunc.parametrize(
            ("trial", "provider"),
            [
                pytest.param((name, kind, size, dtype), provider, id=f"{name}-{kind}-{size}-{dtype}-{provider}")
                for name, each in BENCHMARKS.items()
                for kind in each.kinds
                for size in each.sizes[DEVICE.type]
                for dtype in each.dtypes
                for provider in each.providers
            ],
            indirect=["trial"],
            scope="module",
        )


@pytest.fixture(scope="module")
def trial(request: pytest.FixtureRequest) -> Trial:
    name, kind, size, dtype = request.param
    gc.collect()
    torch.compiler.reset()
    return BENCHMARKS[name].trial(kind, size, DTYPES[dtype], DEVICE)


@pytest.fixture(scope="module")
def conditions() -> dict[str, Any]:
    return machine(DEVICE)


def test_provider(trial: Trial, provider: str, benchmark: Any, conditions: dict[str, Any]) -> None:
    calls, failures = kept(trial, [provider])
    if failures:
        pytest.fail(f"not timed: {failures[provider]}")
    call = calls[provider]
    repeats = max(1, round(SHORTEST / seconds(call, 1, DEVICE)))
    benchmark.group = trial.title
    benchmark.extra_info.update(conditions, elements=trial.elements, bytes=trial.touched.get(provider))
    benchmark.pedantic(call, iterations=repeats, rounds=5, warmup_rounds=1)
