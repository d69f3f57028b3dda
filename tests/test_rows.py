"""Rows that are functions, known regions, samples that share their noise, and draws before the first step."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import fastlangevin as fl
from fastlangevin.ops import quick
from fastlangevin.samplers import due
from fastlangevin.schemes import Apply, Move, Step
from tests.test_schemes import AT, LADDER, SCHEMES, UPDATE, carried_score, exact_score, one

REGION = fl.Inpainting(torch.ones(2, 1).bool(), torch.zeros(2, 1))


def test_regions_and_rows_are_told_of():
    region = fl.Inpainting(torch.tensor([True, False]), torch.zeros(2), noise="step")
    scheme = SCHEMES["annealed_langevin"].inpainted(region)
    assert str(scheme).splitlines()[0].endswith("a known region by noise='step'")
    score = exact_score(scheme)
    found = fl.sample(score, scheme, shape=(3, 2), seed=5)
    assert torch.equal(found, fl.sample(score, SCHEMES["annealed_langevin"], shape=(3, 2), seed=5, inpainting=region))
    assert not torch.equal(found, fl.sample(score, SCHEMES["annealed_langevin"], shape=(3, 2), seed=5))
    rows = SCHEMES["annealed_langevin"].interpolating(3)
    assert str(rows).splitlines()[0].endswith("rows of 3 samples that share their noise")
    assert rows.law(0.5, 0.09) == SCHEMES["annealed_langevin"].law(0.5, 0.09)
    found = fl.sample(score, rows, shape=(2, 4), seed=5)
    assert found.shape == (6, 4)
    # The first of a row has the noise of the sample of twice its number.
    own = fl.sample(score, SCHEMES["annealed_langevin"], shape=(2, 4), seed=5, sample_ids=[0, 2])
    assert torch.equal(found[::3], own)


def shifted(by, draw=None):
    """A scheme whose second row is a function."""

    def function(x, address):
        return x + by if draw is None else x + fl.randn(x.shape, seed=address.seed, draw=address.draw)

    return one(UPDATE, Apply(function, "shift", draw), total=3)


def test_a_row_may_be_a_function():
    x = torch.ones(2, 3)
    plain, score = one(UPDATE, total=1), lambda x, labels: -x
    found = fl.sample(score, shifted(0.5)._replace(total=1), init=x, seed=5)
    assert torch.equal(found, fl.sample(score, plain, init=x, seed=5) + 0.5)
    # Its address is that of its draw, the second of the step.
    drawing = shifted(None, 1)._replace(draws_per_step=2)
    state = fl.sample(score, drawing, init=x, seed=5, full_output=True, trajectory=1)
    own = fl.sample(score, plain._replace(draws_per_step=2), init=x, seed=5) + fl.randn((2, 3), seed=5, draw=1)
    assert torch.equal(state.trajectory[1], own)
    assert "x <- shift(x, z[1])" in str(drawing)
    assert "x <- shift(x)" in str(shifted(0.5))
    # Also one move at a time.
    chain = fl.ChainState(x, step=0, seed=5)
    for _ in range(3):
        chain = fl.samplers.advance(drawing, chain, -chain.x)
    assert torch.equal(chain.x, state.samples)


@pytest.mark.parametrize("kind", ["raise", "report", "freeze"])
def test_a_step_with_a_function_is_looked_at_when_it_ends(kind):
    score = exact_score(SCHEMES["annealed_langevin"])

    def spoilt(at):
        def function(x, address):
            return torch.where(torch.arange(2)[:, None] == 1, math.nan, x) if address.draw == at else x

        return one(UPDATE, Apply(function, "spoil", 0), total=3)

    options = {"shape": (2, 3), "seed": 5}
    whole = fl.sample(score, spoilt(9), **options)
    if kind == "raise":
        with pytest.raises(fl.NonFiniteError, match="in update 1 "):
            fl.sample(score, spoilt(1), **options)
        return
    found = fl.sample(score, spoilt(1), **options, full_output=True, non_finite=kind)
    assert [(fault.row, fault.step) for fault in found.faults] == [(1, 1)]
    assert torch.equal(found.samples[0], whole[0])
    # What is finite again is not told of, as a region that is put in makes it; unless it was to stay as it is.
    mends = Apply(lambda x, address: x.nan_to_num(0.0), "mend")
    mended = spoilt(1)._replace(make=lambda number: Step((*spoilt(1).make(number).rows, *[mends] * (number == 2)), 0))
    found = fl.sample(score, mended, **options, full_output=True, non_finite=kind)
    assert bool(found.samples.isfinite().all()) is (kind == "report")
    assert len(found.faults) == (kind == "freeze")


def test_draws_may_begin_after_those_of_the_initial_state():
    x, score = torch.ones(2, 3), lambda x, labels: -x
    later = fl.sample(score, one(UPDATE, total=2)._replace(first_draw=3), init=x, seed=5)
    plain = fl.sample(score, one(UPDATE, total=5), init=x, seed=5, full_output=True)
    state = dataclasses.replace(plain.state, x=x, step=3)
    assert torch.equal(later, fl.sample(score, one(UPDATE, total=5), resume=state))
    assert not torch.equal(later, fl.sample(score, one(UPDATE, total=2), init=x, seed=5))


def test_a_result_is_kept_where_a_later_call_of_the_network_would_overwrite_it():
    buffer = torch.empty(2, 3)

    def score(x, labels):
        return torch.sin(x, out=buffer)

    first = Move("y", {"x": 1.0, "score": 0.1}, evaluate=AT)
    second = Move("x", {"x": 1.0, "score": 0.1, "next": 0.3}, evaluate=AT._replace(slot="y", into="next"))
    x = torch.ones(2, 3)
    y = x + 0.1 * x.sin()
    found = fl.sample(score, one(first, second), init=x, seed=5)
    torch.testing.assert_close(found, x + 0.1 * x.sin() + 0.3 * y.sin(), rtol=1e-6, atol=0)
    step = one(first, second).make(0)
    assert (step.outlives(0), step.outlives(1)) == (True, False)
    assert not one(UPDATE, UPDATE).make(0).outlives(0)  # which the second row's own result replaces


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shifted(0.5).noise_first().step(0), "order='score' alone: shift is a function"),
        (lambda: shifted(0.5).law(0.0, 1.0), "shift is a function of the state"),
        (lambda: shifted(0.5, 1).check(), "row 1 .*names draw 1"),
        (lambda: shifted(0.5).interpolating(1), "points must be from 2"),
        (lambda: shifted(0.5)._replace(draws_per_step=2).interpolating(3), "2 draws a step"),
        (lambda: SCHEMES["annealed_langevin"].inpainted(REGION).law(0.5, 0.09), "of which nothing is known"),
        (
            lambda: due(SCHEMES["annealed_langevin"].inpainted(REGION), fl.ChainState(torch.zeros(2, 1), 0, seed=1)),
            "a known region is put in by",
        ),
        (lambda: SCHEMES["ddpm"].inpainted(REGION), "inpainting= needs a ladder"),
        (
            lambda: fl.Sampler(lambda x, labels: x, SCHEMES["annealed_langevin"].interpolating(3), (2, 1)),
            "not rows of annealed_langevin",
        ),
    ],
)
def test_what_they_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_network_s_own_output_is_not_kept_as_a_score():
    scheme = carried_score(LADDER)
    for output in ("scaled", "noise", "denoised"):
        with pytest.raises(ValueError, match=r"carried_score keeps the network's result in 'even' from step to step"):
            scheme.predicting(output)
    assert scheme.predicting("score").law(0.5, 0.09) == scheme.law(0.5, 0.09)
    # A row that reads a score after its state is gone is refused at once, too.
    late = one(UPDATE, Move("y", {"score": 1.0}))
    assert late.predicting("noise")
    with pytest.raises(ValueError, match="after the state that it is the score of was overwritten"):
        late.predicting("denoised")


def state(**changes):
    return dataclasses.replace(fl.ChainState(torch.zeros(2, 3), 1, seed=1), **changes)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fl.Sampler(lambda x, labels: x, LADDER, (2, 1)), TypeError, "scheme must be a Scheme"),
        (lambda: due(LADDER, state()), TypeError, "scheme must be a Scheme"),
        (
            lambda: fl.Sampler(lambda x, labels: x, one(UPDATE), (2, 1))(full_output=True),
            TypeError,
            "there is no option full_output= here",
        ),
        (
            lambda: fl.samplers.advance(carried_score(LADDER), state(), torch.zeros(2, 3)),
            ValueError,
            r"state.carried must hold the slot 'even', which row 0 of step 1 of carried_score reads",
        ),
        (
            lambda: fl.samplers.advance(one(UPDATE, total=2), state(seed="a"), torch.zeros(2, 3)),
            TypeError,
            "state.seed must be an integer",
        ),
        (lambda: one(UPDATE).law(0.0, 1.0, init=None), ValueError, "init must be 'uniform', 'normal' or a pair"),
        (lambda: one(UPDATE).step(1.0), TypeError, "step must be an integer"),
        (
            lambda: fl.sample(lambda x, labels: x, one(UPDATE), shape=(2, 1), callback=3),
            TypeError,
            r"callback must be callable as callback\(info\)",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
    assert one(UPDATE, total=3).step(np.int64(1)) == one(UPDATE).step(0)


def test_long_chains_go_the_quick_way_to_their_end(monkeypatch):
    """Draw numbers above 256 are other objects each time they are made."""
    done = []
    own = quick.step

    def counted(*arguments, **options):
        found = own(*arguments, **options)
        done.append(found is not None)
        return found

    monkeypatch.setattr(quick, "step", counted)
    plain = {"shape": (2, 3), "seed": 1, "full_output": True}
    fl.sample(lambda x, labels: -x, one(UPDATE, total=300), **plain, telemetry=1)
    assert len(done) == 300
    assert all(done)
