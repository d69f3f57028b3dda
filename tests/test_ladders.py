"""Ladders: their formulas, their ends, and how one becomes another."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastlangevin as fl
from fastlangevin.ladders import check_sigmas

LADDERS: dict[str, Callable[[float, float, int], Tensor]] = {
    "geometric": fl.geometric_sigmas,
    "linear": fl.linear_sigmas,
    "karras": fl.karras_sigmas,
    "continuous VE": lambda high, low, levels: fl.continuous_ve_sigmas(low, high, levels),
}
SIGMA = st.floats(1e-3, 1e3)
# Neighbours that are closer than this are a matter of rounding.
LEAST_SPAN = 1.01


@pytest.mark.parametrize("name", LADDERS)
@given(SIGMA, SIGMA, st.integers(2, 300))
@settings(max_examples=50, deadline=None)
def test_a_ladder_descends_from_end_to_end_in_fp64(name: str, one: float, other: float, levels: int) -> None:
    low, high = sorted((one, other))
    high = max(high, LEAST_SPAN * low)
    sigmas = LADDERS[name](high, low, levels)
    assert sigmas.dtype == torch.float64
    assert sigmas.shape == (levels,)
    values = check_sigmas(sigmas)
    # exp(log(sigma)) is off by an ulp for each unit of the logarithm, pow likewise.
    assert values[0] == pytest.approx(high, rel=1e-14)
    last = low * (high / low) ** 1e-5 if name == "continuous VE" else low
    assert values[-1] == pytest.approx(last, rel=1e-14)


def test_ends_that_are_exact() -> None:
    for make in (fl.linear_sigmas, fl.karras_sigmas):
        sigmas = make(0.7, 0.003, 19)
        assert (sigmas[0].item(), sigmas[-1].item()) == (0.7, 0.003)


def test_steps_of_the_linear_ladder_and_ratios_of_the_geometric_are_constant() -> None:
    linear = fl.linear_sigmas(50.0, 0.01, 232)
    assert torch.allclose(-linear.diff(), torch.tensor(49.99 / 231, dtype=torch.float64), rtol=1e-11)
    geometric = fl.geometric_sigmas(50.0, 0.01, 232)
    ratios = torch.tensor([high / low for high, low in pairwise(geometric.tolist())])
    assert torch.allclose(ratios, torch.tensor(5000 ** (1 / 231)), rtol=1e-12)


def test_karras_sigmas_are_the_formula_of_the_paper() -> None:
    high, low, levels, rho = 80.0, 0.002, 18, 7.0
    for index, sigma in enumerate(fl.karras_sigmas(high, low, levels).tolist()):
        root = high ** (1 / rho) + index / (levels - 1) * (low ** (1 / rho) - high ** (1 / rho))
        assert sigma == pytest.approx(root**rho, rel=1e-13)
        if 0 < index < levels - 1:
            slipped = high ** (1 / rho) + index / levels * (low ** (1 / rho) - high ** (1 / rho))
            assert sigma != pytest.approx(slipped**rho, rel=1e-3)


def test_karras_sigmas_lie_between_the_linear_and_the_geometric_ladder() -> None:
    linear, geometric = fl.linear_sigmas(50.0, 0.01, 40), fl.geometric_sigmas(50.0, 0.01, 40)
    assert torch.allclose(fl.karras_sigmas(50.0, 0.01, 40, rho=1.0), linear, rtol=1e-12)
    assert torch.allclose(fl.karras_sigmas(50.0, 0.01, 40, rho=1e9), geometric, rtol=1e-7)
    between = [linear]
    between += [fl.karras_sigmas(50.0, 0.01, 40, rho=rho) for rho in (2.0, 7.0, 30.0)]
    for above, below in pairwise([*between, geometric]):
        assert (above[1:-1] > below[1:-1]).all()


def test_karras_sigmas_of_a_small_rho_stay_finite() -> None:
    # high^(1/rho) would be 50^10000.
    check_sigmas(fl.karras_sigmas(50.0, 0.01, 5, rho=0.5))
    assert fl.karras_sigmas(50.0, 0.01, 5, rho=1e-4).isfinite().all()


def test_continuous_sigmas_end_a_little_above_the_smallest_unless_the_time_ends_at_zero() -> None:
    sigmas = fl.continuous_ve_sigmas(0.01, 50.0, 1000)
    assert sigmas[0].item() == 50.0
    assert sigmas[-1].item() / 0.01 == pytest.approx(1.000085, abs=5e-7)
    times = [1 + (1e-5 - 1) * index / 999 for index in range(1000)]
    expected = torch.tensor([0.01 * math.exp(time * math.log(5000)) for time in times], dtype=torch.float64)
    assert torch.allclose(sigmas, expected, rtol=1e-13)
    whole = fl.continuous_ve_sigmas(0.01, 50.0, 1000, t_end=0)
    assert torch.allclose(whole, fl.geometric_sigmas(50.0, 0.01, 1000), rtol=1e-13)
    assert not torch.allclose(sigmas, fl.geometric_sigmas(50.0, 0.01, 1000), rtol=1e-5)


def test_one_level() -> None:
    for make in (fl.geometric_sigmas, fl.linear_sigmas, fl.karras_sigmas):
        assert make(0.5, 0.5, 1).tolist() == [pytest.approx(0.5, rel=1e-15)]
    assert fl.continuous_ve_sigmas(0.01, 50.0, 1).tolist() == [50.0]


@pytest.mark.parametrize("make", [fl.linear_sigmas, fl.karras_sigmas, LADDERS["continuous VE"]])
def test_a_chain_takes_every_ladder(make: Callable[[float, float, int], Tensor]) -> None:
    sigmas = make(1.0, 0.1, 3)
    x = fl.annealed_langevin(
        lambda x, labels: -x / (1 + sigmas.float()[labels, None] ** 2),
        sigmas,
        shape=(4, 2),
        step_lr=1e-3,
        steps_per_level=2,
        seed=0,
        impl="reference",
    )
    assert x.isfinite().all()


BITS = """
import sys
import fastlangevin as fl

for ladder in (fl.geometric_sigmas, fl.linear_sigmas, fl.karras_sigmas, fl.continuous_ve_sigmas):
    for levels in (10, 232, 1000):
        low, high = 0.01, 50.0
        ends = (low, high) if ladder is fl.continuous_ve_sigmas else (high, low)
        sys.stdout.write(ladder(*ends, levels).numpy().tobytes().hex())
"""
CONTROL = "import torch; print(torch.exp(torch.linspace(-4.6, 3.9, 232, dtype=torch.float64)).numpy().tobytes().hex())"


@pytest.mark.parametrize("code", [BITS, CONTROL], ids=["ladders", "PyTorch's own functions"])
def test_a_ladder_has_the_same_bits_with_other_vector_instructions(code: str) -> None:
    def printed(**more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | more, capture_output=True, text=True, check=True
        )
        return done.stdout

    if code is CONTROL and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no other vector instructions for PyTorch")
    assert (printed() == printed(ATEN_CPU_CAPABILITY="default")) == (code is BITS)
