"""``fl.Sampler``: many runs of one scheme, by calls and by replays of one capture."""

import pytest
import torch

import fastlangevin as fl
from fastlangevin import schemes
from fastlangevin.samplers import replaying
from tests.test_replaying import StandInGraphs

LADDER = fl.geometric_sigmas(1.0, 0.1, 4)
SHAPE = (5, 2, 3)
SCHEME = schemes.annealed_langevin(LADDER, epsilon=2e-3, steps_per_level=5, denoise=True)
RUNS = [
    {"seed": 3},
    {"seed": 2**64 - 1},
    {"seed": 3, "sample_ids": [7, 2**50, 1, 0, 3]},
    {"seed": 3, "sample_offset": 9},
    {"seed": 3},
]


def score(x, labels):
    scale = LADDER.to(x.dtype)[labels].reshape(-1, 1, 1)
    return -torch.sin(3 * x) / (scale**2 + 0.1)


def pull(x, labels):
    return 0.5 - x


@pytest.fixture
def graphs(monkeypatch):
    stand_in = StandInGraphs()
    monkeypatch.setattr(replaying, "graphs_for", lambda device: stand_in)
    replaying._tell.cache_clear()
    return stand_in


@pytest.mark.parametrize(
    "options",
    [{}, {"drift": pull}, {"init": "normal"}, {"dtype": torch.float64}],
    ids=["plain", "drift", "normal", "fp64"],
)
def test_every_run_has_the_bits_of_a_run_of_its_own(options):
    sampler = fl.Sampler(score, SCHEME, SHAPE, **options)
    made = [sampler(**run) for run in RUNS]
    for run, found in zip(RUNS, made, strict=True):
        assert torch.equal(found, fl.sample(score, SCHEME, shape=SHAPE, **options, **run))
    assert not torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[-1])


@pytest.mark.parametrize("options", [{}, {"drift": pull}, {"non_finite": None}], ids=["plain", "drift", "unwatched"])
def test_replayed_runs_share_one_capture(options, graphs):
    sampler = fl.Sampler(score, SCHEME, SHAPE, cuda_graph=True, **options)
    made = [sampler(**run) for run in RUNS]
    assert graphs.captured == 1
    assert graphs.replayed >= len(RUNS) * 20
    for run, found in zip(RUNS, made, strict=True):
        assert torch.equal(found, fl.sample(score, SCHEME, shape=SHAPE, cuda_graph=False, **options, **run))
    assert graphs.closed == 0
    del sampler
    assert graphs.closed == 1


def test_a_run_that_failed_leaves_the_next_one_alone(graphs):
    calls = []

    def failing(x, labels):
        calls.append(1)
        value = score(x, labels)
        return value * torch.nan if poisoned else value

    poisoned = False
    sampler = fl.Sampler(failing, SCHEME, SHAPE, cuda_graph=True, full_output=True, telemetry="level")
    first = sampler(seed=3)
    assert first.telemetry.steps == (4, 9, 14, 19)
    poisoned = True
    with pytest.raises(fl.NonFiniteError, match="5 of 5 samples are not finite"):
        sampler(seed=3)
    poisoned = False
    again = sampler(seed=3)
    assert torch.equal(again.samples, first.samples)
    assert again.telemetry.steps == first.telemetry.steps
    assert again.evaluations == first.evaluations
    assert again.state.seed == 3


def test_what_does_not_fit_is_refused_and_the_next_run_is_as_it_was(graphs):
    with pytest.raises(TypeError, match="there is no option steps= here"):
        fl.Sampler(score, SCHEME, SHAPE, steps=3)
    with pytest.raises(ValueError, match=r"score must be called as score\(x, labels\)"):
        fl.Sampler(lambda x: x, SCHEME, SHAPE)
    sampler = fl.Sampler(score, SCHEME, SHAPE, cuda_graph=True)
    first = sampler(seed=3)
    with pytest.raises(ValueError, match="seed= must be of one kind in all runs of a Sampler"):
        sampler(seed=torch.arange(5))
    with pytest.raises(ValueError, match="seed must be"):
        sampler(seed=-1)
    assert torch.equal(sampler(seed=3), first)
