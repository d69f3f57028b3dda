"""The paper's experiments in their short form: the claims hold, the controls miss them, the same command writes the
same bytes; and the committed results are those of the full form."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from examples.paper import __main__ as command
from examples.paper import ladder, slow_mixing
from examples.paper.drawing import canvas
from examples.paper.experiment import Check, Experiment, Outcome, perform
from examples.paper.low_density import rank_correlation
from examples.paper.registry import EXPERIMENTS
from examples.paper.toy import MEANS, TOY, interval, lower_left


class Runs:
    """The experiments that were run, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}

    def outcome(self, name: str) -> Outcome:
        if name not in self.outcomes:
            self.outcomes[name] = perform(EXPERIMENTS[name], self.folder, short=True)
        return self.outcomes[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("paper"))


@pytest.mark.long
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_claims_hold_and_controls_miss_them(name: str, runs: Runs) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    outcome = runs.outcome(name)
    assert len(outcome.checks) >= 2
    assert outcome.failures() == []
    record = json.loads((runs.folder / f"{name}.json").read_text())
    assert [check["holds"] for check in record["checks"]] == [True] * len(outcome.checks)
    assert (runs.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.long
@pytest.mark.parametrize("name", ["low-density", "slow-mixing"])
def test_the_same_command_writes_the_same_bytes(name: str, runs: Runs, tmp_path: Path) -> None:
    runs.outcome(name)
    torch.manual_seed(1)
    assert command.main([name, "--short", "--quiet", "--out", str(tmp_path)]) == 0
    for file in (f"{name}.png", f"{name}.json"):
        assert (tmp_path / file).read_bytes() == (runs.folder / file).read_bytes()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_committed_results_are_of_the_full_form_and_small(name: str) -> None:
    record = json.loads((command.RESULTS / f"{name}.json").read_text(), parse_constant=pytest.fail)
    assert record["sizes"] == dataclasses.asdict(EXPERIMENTS[name].full)
    assert [check["holds"] for check in record["checks"]] == [True] * len(record["checks"])
    assert (command.RESULTS / f"{name}.png").stat().st_size <= 200_000


# What a claim is.


def check(value: float, of_control: float) -> Check:
    return Check("a number", value, 0.0, 1.0, "another", of_control)


@pytest.mark.parametrize(
    ("value", "of_control", "wrong"),
    [
        (0.5, 2.0, None),
        (0.5, math.nan, None),
        (2.0, 3.0, "a number: 2 is not within 0 to 1"),
        (math.nan, 3.0, "is not within"),
        (0.5, 0.7, "another passes as well"),
    ],
)
def test_a_claim_needs_its_number_within_and_its_control_outside(
    value: float, of_control: float, wrong: str | None
) -> None:
    failure = check(value, of_control).failure()
    assert failure is None if wrong is None else wrong in (failure or "")


@pytest.mark.parametrize(("of_control", "status"), [(2.0, 0), (0.5, 1)])
def test_the_exit_status_says_whether_the_claims_hold(
    of_control: float,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = Outcome({"number": 1 / 3}, [check(0.5, of_control)], canvas(1, 1))
    made_up = Experiment("made-up", "nothing", lambda sizes, progress: outcome, ladder.Sizes(), ladder.Sizes())
    monkeypatch.setitem(EXPERIMENTS, "made-up", made_up)
    assert command.main(["made-up", "--out", str(tmp_path)]) == status
    assert ("examples.paper: error: made-up" in capsys.readouterr().err) == bool(status)
    assert json.loads((tmp_path / "made-up.json").read_text())["numbers"] == {"number": 0.333333}


@pytest.mark.parametrize("arguments", [[], ["--all", "film"], ["films"]])
def test_the_command_names_its_experiments_when_it_is_not_told_one(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert "low-density, slow-mixing" in capsys.readouterr().err


# What the numbers are made with.


def test_shares_at_equilibrium_are_those_of_perturbed_samples() -> None:
    for sigma in (4.0, 20.0):
        n = 100_000
        share = lower_left(TOY.sample(n, seed=0, sigma=sigma)).item()
        # Six standard deviations; the share of the other level is a hundred away.
        assert abs(share - slow_mixing.at_equilibrium(sigma)) < 6 * math.sqrt(0.25 / n)
        assert abs(share - slow_mixing.at_equilibrium(24.0 - sigma)) > 60 * math.sqrt(0.25 / n)


def test_the_lower_left_is_what_is_nearer_to_the_mean_of_one_fifth() -> None:
    x = TOY.sample(1000, seed=0, sigma=5.0)
    nearer = torch.cdist(x, torch.tensor(MEANS)).argmin(1) == 0
    assert lower_left(x).item() == nearer.double().mean().item()


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_rank_correlation_does_not_see_monotone_functions() -> None:
    x = torch.linspace(-2, 2, 51)
    assert rank_correlation(x, x.exp()) == pytest.approx(1.0, abs=1e-12)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1.0, abs=1e-12)
    assert abs(rank_correlation(x, (x - 0.001).square())) < 0.1


def test_the_law_of_widths_ends_in_the_stationary_one() -> None:
    for relative in (0.2, 0.4):
        assert ladder.law(relative)[-1] == pytest.approx(1 / math.sqrt(1 - relative / 4), rel=1e-6)
    assert ladder.law(0.4)[-1] == pytest.approx(1.0541, abs=5e-5)
