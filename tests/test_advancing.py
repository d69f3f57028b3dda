"""``advance``: a scheme in one's own loop, one call of the network at a time."""

import dataclasses
import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin import schemes
from fastlangevin.samplers import advance, due
from fastlangevin.schemes import Scheme
from tests.test_schemes import carried_score, exact_score, heun, two_step

LADDER = fl.geometric_sigmas(4.0, 0.1, 9).tolist()
SEED = 5

MADE = {
    "annealed": schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=2, denoise=True),
    "noise first": schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=2).noise_first(),
    "clamped": schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=2).clamped(-1.0, 1.0),
    "measured": schemes.predictor_corrector(LADDER, snr=0.1, norm="batch"),
    "heun": heun(LADDER),
    "two steps": two_step(LADDER),
    "carried": carried_score(LADDER),
}


def by_hand(scheme: Scheme, score, state: fl.ChainState) -> fl.ChainState:
    for _ in range(3 * scheme.total + 3):
        if state.step == scheme.total + (scheme.denoise is not None):
            return state
        at = due(scheme, state)
        x = None if at is None else state.slots[at.slot]
        output = None if at is None else score(x, torch.full((len(x),), at.level))
        state = advance(scheme, state, output)
    raise AssertionError(f"the chain did not end: {state.step} steps were made")


@pytest.mark.parametrize("name", MADE)
def test_a_loop_of_ones_own_has_the_bits_of_ours(name):
    scheme = MADE[name]
    score = exact_score(scheme)
    init = fl.randn((6, 3), seed=2)
    before = init.clone()
    whole = fl.sample(score, scheme, init=init, seed=SEED)
    start = fl.ChainState(init, step=0, seed=SEED)
    assert torch.equal(by_hand(scheme, score, start).x, whole)
    assert torch.equal(init, before)
    other = fl.ChainState(init, step=0, seed=SEED + 1)
    deterministic = name in ("heun", "carried")
    assert torch.equal(by_hand(scheme, score, other).x, whole) is deterministic


@pytest.mark.parametrize("name", MADE)
def test_no_state_that_was_given_is_written_to(name):
    scheme = MADE[name]
    score = exact_score(scheme)
    state = fl.ChainState(fl.randn((6, 3), seed=2), step=0, seed=SEED)
    for _ in range(4):
        kept = {slot: tensor.clone() for slot, tensor in state.slots.items()}
        at = due(scheme, state)
        output = None if at is None else score(state.slots[at.slot], torch.full((6,), at.level))
        again = output if output is None else output.clone()
        following = advance(scheme, state, output)
        assert {slot: tensor.tolist() for slot, tensor in state.slots.items()} == {
            slot: tensor.tolist() for slot, tensor in kept.items()
        }
        assert output is None or torch.equal(output, again)
        state = following


def test_a_state_between_two_evaluations_says_what_is_due():
    scheme = MADE["heun"]
    state = fl.ChainState(torch.ones(2, 3), step=0, seed=SEED)
    first = due(scheme, state)
    assert (first.slot, first.level, state.row) == ("x", 0, 0)
    state = advance(scheme, state, torch.zeros(2, 3))
    second = due(scheme, state)
    assert (second.slot, second.level, state.step, state.row) == ("ahead", 1, 0, 1)
    state = advance(scheme, state, torch.zeros(2, 3))
    assert (state.step, state.row, state.carried) == (1, 0, {})


def test_a_value_that_is_not_finite_is_recorded_with_its_step_and_stays():
    scheme = MADE["annealed"]
    state = fl.ChainState(torch.ones(3, 2), step=4, seed=SEED)
    bad = torch.zeros(3, 2)
    bad[1] = math.nan
    for output in (torch.zeros(3, 2), bad, torch.zeros(3, 2)):
        state = advance(scheme, state, output)
    none = 2**63 - 1
    assert state.fault.tolist() == [none, 5, none]
    assert advance(scheme, state, bad, watch=False).fault is state.fault


def test_gradients_go_through_a_step():
    scheme = MADE["annealed"]
    x = torch.ones(3, 2, requires_grad=True)
    score = torch.zeros(3, 2, requires_grad=True)
    moved = advance(scheme, fl.ChainState(x, step=0, seed=SEED), score)
    moved.x.sum().backward()
    rule = scheme.make(0).rule
    assert torch.equal(x.grad, torch.ones(3, 2))
    torch.testing.assert_close(score.grad, torch.full((3, 2), rule.a))
    assert moved.fault.tolist() == [2**63 - 1] * 3


def test_noise_of_ones_own_takes_the_place_of_the_draw():
    scheme = MADE["annealed"]
    state = fl.ChainState(torch.ones(3, 2), step=4, seed=SEED)
    z = fl.randn((3, 2), seed=SEED, draw=4, purpose=fl.Purpose.LANGEVIN)
    drawn, given = (advance(scheme, state, torch.zeros(3, 2), noise=noise) for noise in (None, z))
    assert torch.equal(drawn.x, given.x)
    assert not torch.equal(drawn.x, advance(scheme, state, torch.zeros(3, 2), noise=-z).x)


def test_what_is_not_the_schemes_is_refused():
    scheme = MADE["noise first"]
    state = fl.ChainState(torch.ones(3, 2), step=0, seed=SEED)
    with pytest.raises(ValueError, match="output must be None, since no call of the network is due, at row 0 of step"):
        advance(scheme, state, torch.ones(3, 2))
    state = advance(scheme, state, None)
    with pytest.raises(ValueError, match="output must be the network's for the slot x, at row 1 of step 0"):
        advance(scheme, state, None)
    with pytest.raises(ValueError, match=r"output must have the state's shape \(3, 2\), got \(2, 2\)"):
        advance(scheme, state, torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"state\.step must be below 18, the steps of the scheme annealed_langevin"):
        due(scheme, dataclasses.replace(state, step=18))
    with pytest.raises(ValueError, match=r"state\.row must be below 2, the rows of step 0, got 2"):
        due(scheme, dataclasses.replace(state, row=2))
    with pytest.raises(TypeError, match="state must be a ChainState, got Tensor"):
        advance(scheme, torch.ones(3, 2), None)


# Networks that return something else than the score


PREDICTED = [
    (name, output)
    for name in ("annealed", "noise first", "heun", "two steps")
    for output in ("score", "scaled", "noise", "denoised")
    if (name, output) != ("two steps", "denoised")
]


@pytest.mark.parametrize(("name", "output"), PREDICTED)
def test_a_scheme_of_another_output_is_the_same_chain(name, output):
    scheme = MADE[name]
    score = exact_score(scheme)

    def net(x, sigma):
        labels = torch.tensor([LADDER.index(each) for each in sigma.tolist()])
        sigma = sigma[:, None]
        value = score(x, labels)
        return {
            "score": value,
            "scaled": sigma * value,
            "noise": -sigma * value,
            "denoised": x + sigma**2 * value,
        }[output]

    init = fl.randn((6, 3), seed=2, dtype=torch.float64)
    other = scheme.predicting(output, "sigma")
    expected = fl.sample(score, scheme, init=init, seed=SEED)
    made = fl.sample(net, other, init=init, seed=SEED)
    # Some 20 steps of a few roundings each, of numbers below 10.
    torch.testing.assert_close(made, expected, rtol=0, atol=2000 * 2.0**-53)
    assert other.law(0.5, 0.09) == pytest.approx(scheme.law(0.5, 0.09), rel=1e-12)
    if output != "score":
        wrong = scheme.predicting("noise" if output != "noise" else "scaled", "sigma")
        assert not torch.allclose(fl.sample(net, wrong, init=init, seed=SEED), expected, rtol=0, atol=1e-3)


def test_what_needs_the_score_refuses_other_outputs():
    scheme = MADE["annealed"].predicting("denoised", "sigma")
    options = {"shape": (2, 3), "seed": SEED, "full_output": True}
    with pytest.raises(ValueError, match=r"telemetry= needs the score, but the network of annealed_langevin returns"):
        fl.sample(lambda x, sigma: x, scheme, telemetry=1, **options)
    with pytest.raises(ValueError, match="drift= needs the score"):
        fl.sample(lambda x, sigma: x, scheme, drift=lambda x, labels: x, **options)
    with pytest.raises(ValueError, match="a GaussianMixture has the exact score at labels"):
        fl.sample(fl.GaussianMixture([1.0], [[0.0]], [1.0]), scheme, shape=(2, 1), seed=SEED)
    with pytest.raises(ValueError, match="signal-to-noise ratio needs the score, not output='noise'"):
        MADE["measured"].predicting("noise").step(0)
    with pytest.raises(ValueError, match="a row reads 'score' after the state that it is the score of was overwritten"):
        MADE["two steps"].predicting("denoised").step(1)
    with pytest.raises(ValueError, match="is one of output='denoised' already"):
        scheme.predicting("noise")
    with pytest.raises(ValueError, match="output must be one of score, scaled, noise, denoised, got 'velocity'"):
        MADE["annealed"].predicting("velocity")
    with pytest.raises(ValueError, match="needs a noise level above zero"):
        schemes.langevin(steps=3, epsilon=0.1).predicting("noise").step(0)
    with pytest.raises(ValueError, match=r"score must be called as score\(x, sigma\) for the scheme"):
        fl.sample(lambda x: x, scheme, shape=(2, 3), seed=SEED)
