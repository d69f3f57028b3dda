"""Plans: what they hold, that a chain by one has the law it says, its table and picture, and the command."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fastlangevin as fl
from fastlangevin import advisor, data
from fastlangevin.cli import main
from fastlangevin.noise import Purpose

CIFAR: dict[str, Any] = {"sigma_1": 50.0, "shape": (3, 32, 32)}
LIMIT = 6.0  # standard errors


def normal(*shape: int) -> torch.Tensor:
    return fl.randn(shape, seed=0, purpose=Purpose.USER, impl="reference")


def test_the_published_plan_of_cifar10() -> None:
    plan = fl.plan(budget=1161, levels=232, **CIFAR)
    assert plan.evaluations == plan.budget == 232 * 5 + 1
    assert (plan.levels, plan.steps_per_level, plan.D, plan.notes) == (232, 5, 3072, ())
    assert torch.equal(plan.sigmas, fl.geometric_sigmas(50.0, 0.01, 232))
    assert f"{plan.gamma:.5f} {plan.C:.3f} {plan.R:.4f} {plan.step_lr:.2e}" == "1.03756 0.567 1.0555 6.18e-06"
    assert plan.epsilon == 2 * plan.step_lr
    setting = {"steps_per_level": 5, "step_lr": plan.step_lr}
    assert plan.final_R == advisor.final_variance_ratio(plan.sigmas, **setting)
    assert f"{advisor.variance_ratio(plan.sigmas, **setting)[0].item():.12f}" == f"{plan.R:.12f}"
    table = str(plan)
    for part in (
        "1161 of 1161",
        "232 levels from 50 to 0.01",
        "C = 0.567",
        "T = 5",
        "step_lr = 6.18402e-06",
        "R = 1.0555",
    ):
        assert part in table
    assert "epsilon = 1.2368e-05 (paper)" in table
    assert "end 6.2 % too wide" in table
    assert len({line[:13].rstrip() for line in table.splitlines()}) == 6


def test_without_a_number_of_levels_the_overlap_decides() -> None:
    plan = fl.plan(budget=1161, **CIFAR)
    assert plan.levels == 219
    assert abs(plan.C - 0.5) < 2e-3
    closer = fl.plan(budget=1161, overlap=0.567, **CIFAR)
    assert 231 <= closer.levels <= 233


@given(st.integers(220, 10**6), st.booleans())
@settings(max_examples=50, deadline=None)
def test_every_level_has_as_many_updates_as_the_budget_allows(budget: int, denoise: bool) -> None:
    plan = fl.plan(budget=budget, denoise=denoise, **CIFAR)
    assert plan.evaluations == plan.levels * plan.steps_per_level + denoise <= budget
    assert plan.evaluations + plan.levels > budget
    assert plan.steps_per_level >= 1


def test_a_budget_that_is_too_small_is_told_what_fits() -> None:
    with pytest.raises(ValueError, match=r"budget = 219 is too small: 219 levels take 220 .* budget=220.* levels=218"):
        fl.plan(budget=219, **CIFAR)
    assert fl.plan(budget=220, **CIFAR).steps_per_level == 1
    assert fl.plan(budget=219, levels=218, **CIFAR).steps_per_level == 1
    assert fl.plan(budget=219, denoise=False, **CIFAR).steps_per_level == 1
    with pytest.raises(ValueError, match=r"budget = 2 is too small: .* give budget=220 or more$"):
        fl.plan(budget=2, **CIFAR)


def test_the_largest_distance_of_the_data_is_the_largest_noise_level() -> None:
    x = normal(60, 2, 3, 2)
    plan = fl.plan(x, budget=1000)
    assert plan.sigma_1 == advisor.largest_distance(x)
    assert plan.D == 12
    assert plan.sigmas[0].item() == pytest.approx(plan.sigma_1, rel=1e-14)
    assert plan.notes == ()
    some = fl.plan(x, budget=1000, subsample=10, seed=1)
    assert some.sigma_1 == advisor.largest_distance(x, subsample=10, seed=1) < plan.sigma_1
    assert "largest distance among 10 of 60 samples, a lower bound" in str(some)
    given_one = fl.plan(list(x), budget=1000, sigma_1=3.0)
    assert (given_one.sigma_1, given_one.D) == (3.0, 12)


def test_plans_that_go_badly_say_so() -> None:
    (note,) = fl.plan(budget=1001, levels=10, sigma_1=1.0, shape=(3, 32, 32)).notes
    assert re.search(r"levels hardly overlap.*; 119 have C = 0.5", note)
    (note,) = fl.plan(budget=220, **CIFAR).notes
    assert "too wide; a larger budget" in note


def test_a_chain_by_the_plan_has_the_variance_that_it_says() -> None:
    """On data that are one point, with the exact score: the mean of squares, to six standard errors."""
    plan = fl.plan(budget=60, sigma_1=1.0, shape=(64,), denoise=False)
    assert plan.steps_per_level == 3
    sigmas = plan.sigmas.float()

    def variance(**changes: Any) -> float:
        x = fl.annealed_langevin(
            lambda x, labels: -x / sigmas[labels, None] ** 2,
            shape=(4000, 64),
            init="normal",
            seed=0,
            **{**plan.kwargs(), **changes},
        )
        return x.double().square().mean().item() / plan.sigma_L**2

    def errors(found: float, expected: float) -> float:
        return abs(found / expected - 1) / math.sqrt(2 / (4000 * 64))

    assert errors(variance(), plan.final_R) < LIMIT
    assert errors(variance(epsilon=plan.step_lr), plan.final_R) > LIMIT  # the other convention
    assert errors(variance(), plan.R) > LIMIT  # as if the level before were perfectly sampled
    assert variance(denoise=True) < 1e-6


def test_the_denoise_step_of_the_plan_is_counted() -> None:
    plan = fl.plan(budget=60, sigma_1=1.0, shape=(64,))
    result = fl.annealed_langevin(
        lambda x, labels: -x, shape=(1, 64), seed=0, full_output=True, impl="reference", **plan.kwargs()
    )
    assert result.evaluations == plan.evaluations


def colours(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(picture: np.ndarray[Any, np.dtype[np.uint8]], colour: str) -> int:
    from matplotlib.colors import to_rgb

    return int((np.abs(picture / 255.0 - np.array(to_rgb(colour))).max(-1) < 0.02).sum())


@pytest.mark.parametrize(
    "options",
    [
        {"budget": 1161, **CIFAR},
        {"budget": 1001, "levels": 10, **CIFAR},
        {"budget": 50, "levels": 5, "sigma_1": 1.0, "shape": (1,)},
    ],
    ids=["published", "no overlap", "one element"],
)
def test_the_picture_shows_all_curves_and_the_chosen_step(options: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan = fl.plan(**options)
    plan.picture(tmp_path / "plan.png")
    picture = colours(tmp_path / "plan.png")
    assert picture.shape == (360, 1200, 3)
    left, middle, right = picture[:, :400], picture[:, 400:800], picture[:, 800:]
    for part, colour in ((left, "tab:blue"), (middle, "tab:blue"), (middle, "tab:orange"), (right, "tab:green")):
        assert count(part, colour) > 100, colour
    assert count(right, "tab:red") > 50
    assert count(left, "tab:red") == count(middle, "tab:red") == 0
    assert os.listdir(tmp_path) == ["plan.png"]


def test_a_picture_without_matplotlib_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'need matplotlib.*pip install "fastlangevin\[train\]"'):
        fl.plan(budget=1161, **CIFAR).picture(tmp_path / "plan.png")
    assert main(["plan", "--budget", "9", "--data", "nothing", "--out", str(tmp_path / "plan.png")]) == 2
    assert "need matplotlib" in capsys.readouterr().err  # before the data are looked at
    assert os.listdir(tmp_path) == []


# The command.

Plan = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main(["plan", *map(str, arguments)])


def test_the_command_prints_the_plan_and_how_to_use_it(command: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--sigma-1", 50, "--shape", 3, 32, 32, "--levels", 232, "--budget", 1161) == 0
    printed = capsys.readouterr()
    plan = fl.plan(budget=1161, levels=232, **CIFAR)
    assert printed.out.startswith(str(plan) + "\n")
    assert (
        f"train with --sigma-1 50.0 --sigma-L 0.01 --levels 232\nsample with --epsilon {plan.epsilon!r} " in printed.out
    )
    assert printed.err == ""
    assert os.listdir() == []


def test_the_command_measures_data_and_draws(command: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert command("--data", "digits", "--budget", 500, "--out", "plan.png", "--no-denoise", "--overlap", 0.6) == 0
    printed = capsys.readouterr()
    expected = fl.plan(data.digits("train"), budget=500, denoise=False, overlap=0.6)
    assert str(expected) in printed.out
    assert "picture: plan.png" in printed.out
    assert "reading" in printed.err
    assert colours(Path("plan.png")).shape == (360, 1200, 3)
    assert command("--data", "digits", "--budget", 500, "--quiet", "--subsample", 100, "--seed", 3, "--memory", 1) == 0
    printed = capsys.readouterr()
    assert str(fl.plan(data.digits("train"), budget=500, subsample=100, seed=3)) in printed.out
    assert printed.err == ""


def test_the_command_measures_a_folder(command: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkdir("images")
    for index, value in enumerate((0, 100, 255)):
        Image.new("L", (4, 4), value).save(f"images/{index}.png")
    assert command("--data", "images", "--budget", 100, "--quiet") == 0
    assert "from 4 to 0.01" in capsys.readouterr().out  # sqrt(16): black to white


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --data, or both of --sigma-1 and --shape"),
        (("--sigma-1", 50), "both of --sigma-1 and --shape"),
        (("--data", "nowhere"), "'nowhere', which is no folder"),
        (("--sigma-1", 50, "--shape", 3, 32, 32, "--budget", 100), "budget = 100 is too small"),
        (("--sigma-1", 0.001, "--shape", 3, 32, 32), "sigma_1 must be larger than sigma_L"),
        (("--sigma-1", 50, "--shape", 3, 32, 32, "--out", "none/plan.png"), "the folder none does not exist"),
        (("--sigma-1", 50, "--shape", 3, 32, 32, "--device", "tpu9"), "--device tpu9 cannot be used"),
        (("--sigma-1", 50, "--shape", 2), "levels="),
    ],
)
def test_the_command_refuses(
    command: Plan, arguments: tuple[object, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--budget", 1000, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("fastlangevin plan: error: ")
    assert says in printed.err
    assert printed.out == ""
