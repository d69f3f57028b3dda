"""Diagnostics against ArviZ's, to rounding; trajectories for ArviZ."""

import math
import sys

import numpy as np
import pytest
import torch

from fastlangevin import diagnostics

arviz = pytest.importorskip("arviz")

# At most 250 autocorrelations, each of some ten roundings of 2^-53 in its transform and its sums over chains, make a
# tau of at least 0.3: 250 * 10 / 0.3 * 2^-53 = 1e-12, and as much in ArviZ.
CLOSE = {"rtol": 2e-12, "atol": 0.0}

OURS = {
    "rhat": diagnostics.split_rhat,
    "plain rhat": lambda x: diagnostics.split_rhat(x, rank=False),
    "bulk": lambda x: diagnostics.ess(x, kind="bulk"),
    "tail": lambda x: diagnostics.ess(x, kind="tail"),
    "mean": lambda x: diagnostics.ess(x, kind="mean"),
    "mcse": diagnostics.mcse,
    "mcse of sd": lambda x: diagnostics.mcse(x, kind="sd"),
}
THEIRS = {
    "rhat": lambda a: arviz.rhat(a, method="rank"),
    "plain rhat": lambda a: arviz.rhat(a, method="split"),
    "bulk": lambda a: arviz.ess(a, method="bulk"),
    "tail": lambda a: arviz.ess(a, method="tail", prob=(0.05, 0.95)),
    "mean": lambda a: arviz.ess(a, method="mean"),
    "mcse": lambda a: arviz.mcse(a, method="mean"),
    "mcse of sd": lambda a: arviz.mcse(a, method="sd"),
}


def theirs(name, x):
    """ArviZ's figure of ``(F, B)``."""
    with np.errstate(all="ignore"):
        return float(THEIRS[name](x.T.numpy()))


def compare(x, names=OURS):
    """Every figure of a trajectory ``(F, B)``, and those of ArviZ."""
    for name in names:
        found, expected = float(OURS[name](x)), theirs(name, x)
        assert found == pytest.approx(expected, rel=CLOSE["rtol"], abs=0, nan_ok=True), (name, tuple(x.shape))


def draws(frames, chains, rho, seed):
    x = torch.randn(frames, chains, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for t in range(1, frames):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * x[t]
    return x


# F*B - 1 is no multiple of 20: there a quantile is a draw, and rounding decides whether ArviZ takes it for one.
SHAPES = [(4, 2), (5, 2), (6, 3), (7, 2), (8, 4), (9, 2), (10, 3), (50, 1), (51, 2), (333, 5), (500, 4), (32, 70)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rho", [-0.95, 0.0, 0.6, 0.99])
def test_random_chains(shape, rho):
    x = draws(*shape, rho, seed=shape[0])
    names = [name for name in OURS if shape[1] > 1 or "rhat" not in name]
    compare(x, names)
    compare(x.tan(), names)
    compare(2.0 ** (2 * x).round(), names)  # many equal draws
    assert float(OURS["mean"](x)) != pytest.approx(theirs("mean", x[:-2]), rel=1e-6)


def test_a_state_of_many_elements_is_its_elements():
    x = torch.stack([draws(60, 3, rho, seed=1) for rho in (-0.5, 0.1, 0.5, 0.9)], dim=2).reshape(60, 3, 2, 2)
    for name, function in OURS.items():
        expected = [theirs(name, x[:, :, i, j]) for i in range(2) for j in range(2)]
        expected = torch.tensor(expected, dtype=torch.float64).reshape(2, 2)
        torch.testing.assert_close(function(x), expected, **CLOSE)


PATHOLOGIES = {
    "one chain stuck": lambda x: x.index_fill(1, torch.tensor(1), 0.3),
    "constant": lambda x: torch.full_like(x, 0.5),
    "two values of one share": lambda x: (x > x.median()).double(),
    "two values, one rare": lambda x: (x > x.quantile(0.99)).double(),
    "a NaN": lambda x: x.index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(torch.nan, dtype=x.dtype)),
    "all NaN": lambda x: x * torch.nan,
    "an infinity": lambda x: x.index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(torch.inf, dtype=x.dtype)),
    "alternating": lambda x: (-1.0) ** torch.arange(len(x))[:, None] + 0 * x,
    "alternating, with noise": lambda x: (-1.0) ** torch.arange(len(x))[:, None] + 0.1 * x,
    "antithetic chains": lambda x: torch.cat((x, -x), dim=1),
    "the same chain twice": lambda x: torch.cat((x, x), dim=1),
    "ramps": lambda x: torch.arange(len(x), dtype=x.dtype)[:, None] + torch.arange(x.shape[1]) / 8,
    "a step": lambda x: x + 10.0 * (torch.arange(len(x)) >= len(x) // 2)[:, None],
    "chains apart": lambda x: x + 10.0 * torch.arange(x.shape[1]),
    "far from zero": lambda x: x + 1000.0,
    "small": lambda x: x * 1e-6,
}


@pytest.mark.parametrize("name", PATHOLOGIES)
@pytest.mark.parametrize("frames", [30, 43])
def test_pathological_chains(name, frames):
    x = PATHOLOGIES[name](draws(frames, 3, 0.4, seed=5))
    if name == "far from zero":
        # Numbers near 1000 are known to 2^-43 of their spread.
        for each, function in OURS.items():
            assert float(function(x)) == pytest.approx(theirs(each, x), rel=1000 * CLOSE["rtol"]), each
    else:
        compare(x)


def test_chains_that_are_all_stuck_apart():
    """ArviZ divides by the rounding of a mean of equal numbers: by zero, or nearly."""
    x = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64).expand(30, 3)
    for name in ("rhat", "plain rhat"):
        assert float(OURS[name](x)) == math.inf
        assert theirs(name, x) > 1e6
    compare(x, ["bulk", "tail", "mean", "mcse"])


def test_a_range_below_1e_15_is_constant_to_arviz_alone():
    x = draws(40, 3, 0.9, seed=2)
    assert theirs("mean", x * 2.0**-60) == 120
    assert float(OURS["mean"](x * 2.0**-60)) == float(OURS["mean"](x)) < 30


def test_a_single_chain_is_two_halves():
    x = draws(40, 1, 0.5, seed=2)
    assert math.isnan(theirs("plain rhat", x))
    halves = np.stack([x[:20, 0].numpy(), x[20:, 0].numpy()])
    expected = float(arviz.rhat(halves, method="identity"))
    assert float(diagnostics.split_rhat(x, rank=False)) == pytest.approx(expected, rel=CLOSE["rtol"])
    compare(x, ["bulk", "tail", "mean", "mcse", "mcse of sd"])


def test_two_frames_are_none_to_arviz_and_refused_here():
    x = draws(2, 4, 0.0, seed=1)
    for name, function in OURS.items():
        assert math.isnan(theirs(name, x))
        with pytest.raises(ValueError, match="at least 4 frames, got 2"):
            function(x)


@pytest.mark.parametrize("shape", [(21, 1), (41, 1), (27, 3), (43, 7), (101, 1)], ids=str)
def test_a_quantile_that_is_a_draw_counts_it(shape):
    """(F B - 1) / 20 is whole: the 5 % and the 95 % quantile are draws, without any interpolation."""
    changed = []
    for seed in range(6):
        x = draws(*shape, 0.5, seed=seed)
        ordered = x.flatten().sort().values
        count = x.numel() - 1
        assert count % 20 == 0
        quantiles = ordered[count // 20], ordered[count - count // 20]
        found = float(OURS["tail"](x))
        expected = min(theirs("mean", (x <= quantile).double()) for quantile in quantiles)
        assert found == pytest.approx(expected, rel=CLOSE["rtol"])
        missed = min(theirs("mean", (x < quantile).double()) for quantile in quantiles)
        changed.append(found != pytest.approx(missed, rel=1e-6))
    assert any(changed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_arviz_gets_chains_of_draws(dtype):
    x = torch.stack([draws(40, 60, rho, seed=3) for rho in (0.1, 0.9)], dim=2)[..., None].to(dtype)
    data = diagnostics.to_arviz(x, name="pixel")
    variable = data["posterior"]["pixel"]
    assert variable.dims == ("chain", "draw", "pixel_dim_0", "pixel_dim_1")
    assert variable.shape == (60, 40, 2, 1)
    assert np.array_equal(variable.values.astype(np.float64), x.double().transpose(0, 1).numpy())
    before = variable.values[0, 0, 0, 0]
    x[0, 0, 0, 0] += 1
    assert variable.values[0, 0, 0, 0] == before
    if dtype == torch.float64:
        table = arviz.rhat(data)
        table = getattr(table, "dataset", table)
        x[0, 0, 0, 0] -= 1
        np.testing.assert_allclose(table["pixel"].values, diagnostics.split_rhat(x).numpy(), rtol=CLOSE["rtol"])


def test_arviz_gets_states_that_are_numbers():
    assert diagnostics.to_arviz(draws(10, 3, 0.0, seed=1))["posterior"]["x"].dims == ("chain", "draw")


def test_without_arviz_there_is_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match="pip install arviz"):
        diagnostics.to_arviz(draws(10, 3, 0.0, seed=1))
