"""What every stand-in has as a call of the one loop: resuming, callbacks, trajectories, telemetry, graphs."""

import dataclasses
import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import k_diffusion, ncsn, ncsnv2, score_sde
from fastlangevin.samplers import replaying
from tests.test_replaying import StandInGraphs

LADDER = fl.geometric_sigmas(2.0, 0.3, 3)
SHAPE = (4, 3, 2, 4)
START = fl.randn(SHAPE, seed=7)
IMAGE = fl.randn(SHAPE, seed=8)
MASK = torch.arange(4) < 2
SIGMAS = [2.0, 1.0, 0.5, 0.2, 0.1, 0.0]
STEPS = {"n_steps_each": 4, "step_lr": 1e-3}


def wide(label, x):
    return label.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def net(x, label):
    return -torch.sin(2 * x) / (1 + wide(label, x) ** 2)


def alone(x):
    return -torch.sin(2 * x)


def pc(sde, corrector="langevin", predictor="reverse_diffusion", **fixed):
    def run(model, **options):
        made = score_sde.get_pc_sampler(
            *(sde, SHAPE, predictor, corrector, lambda x: x, 0.16),
            **{"continuous": True, "device": "cpu", "eps": 1e-3, **fixed, **options},
        )
        result = made(model)
        return result if isinstance(result, fl.SamplingResult) else result[0]

    return run


def inpainted(model, **options):
    sde = score_sde.VESDE(0.01, 5.0, 9)
    made = score_sde.get_pc_inpainter(
        sde, "reverse_diffusion", "langevin", lambda x: x, 0.16, continuous=True, norm="sample", **options
    )
    return made(model, IMAGE, MASK)


def coloured(model, **options):
    sde = score_sde.VPSDE(0.1, 5.0, 9)
    made = score_sde.get_pc_colorizer(sde, "euler_maruyama", "ald", lambda x: x, 0.16, continuous=True, **options)
    return made(model, IMAGE)


# Each with its network and its number of updates.
STAND_INS = {
    "ncsn": (lambda net, **o: ncsn.anneal_Langevin_dynamics(START, net, LADDER, **STEPS, **o), net, 12),
    "ncsn, inpainting": (
        lambda net, **o: ncsn.anneal_Langevin_dynamics_inpainting(START, IMAGE, net, LADDER, **STEPS, **o),
        net,
        12,
    ),
    "ncsn, one level": (lambda net, **o: ncsn.Langevin_dynamics(START, net, 9, 1e-2, label=1, **o), net, 9),
    "ncsn, baseline": (lambda net, **o: ncsn.baseline_Langevin_dynamics(START, net, 9, 1e-2, **o), alone, 9),
    "ncsn, toy": (lambda net, **o: ncsn.toy_langevin_dynamics(net, START, 0.01, 9, **o), alone, 9),
    "ncsn, annealed toy": (
        lambda net, **o: ncsn.toy_anneal_langevin_dynamics(
            lambda x, sigma: net(x, torch.full((len(x),), float(sigma))), START, LADDER, 1e-3, 4, **o
        ),
        net,
        12,
    ),
    "ncsnv2": (lambda net, **o: ncsnv2.anneal_Langevin_dynamics(START, net, LADDER, **STEPS, **o), net, 12),
    "ncsnv2, inpainting": (
        lambda net, **o: ncsnv2.anneal_Langevin_dynamics_inpainting(START, IMAGE, net, LADDER, 4, **STEPS, **o),
        net,
        12,
    ),
    "k-diffusion": (
        lambda net, **o: k_diffusion.sample_euler_ancestral(net, START, SIGMAS, disable=True, **o),
        lambda x, sigma: x / (1 + wide(sigma, x) ** 2),
        5,
    ),
    "score_sde, VE": (pc(score_sde.VESDE(0.01, 5.0, 9), norm="sample", n_steps=2), net, 9),
    "score_sde, VP": (pc(score_sde.VPSDE(0.1, 5.0, 9), norm="sample"), net, 9),
    "score_sde, sub-VP": (pc(score_sde.subVPSDE(0.1, 5.0, 9), "ald", "euler_maruyama"), net, 9),
    "score_sde, no predictor": (pc(score_sde.VESDE(0.01, 5.0, 9), "ald", None), net, 9),
    "score_sde, flow": (pc(score_sde.VPSDE(0.1, 5.0, 9), None, probability_flow=True), net, 9),
    "score_sde, inpainting": (inpainted, net, 9),
    "score_sde, colouring": (coloured, net, 9),
}
EACH = pytest.mark.parametrize("name", STAND_INS)


def rows(net, **options):
    return ncsnv2.anneal_Langevin_dynamics_interpolation(START[:2], net, LADDER, 3, **STEPS, **options)


# What is put into the state, or is called in Python, is not captured.
NOT_CAPTURED = {
    "ncsn, inpainting",
    "ncsnv2, inpainting",
    "score_sde, inpainting",
    "score_sde, colouring",
    "ncsn, annealed toy",
}


def run(name, net=None, **options):
    call, own, _ = STAND_INS[name]
    options = {"callback": None, **options}
    if name == "k-diffusion":  # whose callback is the published one
        options.pop("callback")
    return call(own if net is None else net, seed=5, **options)


def last(found):
    return found[-1] if isinstance(found, list) else found


def steps_of(name):
    return STAND_INS[name][2]


@EACH
def test_a_result_is_returned_where_it_is_asked_for(name):
    result = run(name, full_output=True)
    assert isinstance(result, fl.SamplingResult)
    assert torch.equal(result.samples, last(run(name)))
    assert result.state.step == steps_of(name)
    assert result.evaluations >= steps_of(name)


def parted(name, at):
    """The state after so many updates, of a chain that was stopped there."""
    if name == "k-diffusion":
        kept = run(name, full_output=True, trajectory=1)
        return dataclasses.replace(kept.state, x=kept.trajectory[at], step=at, trajectory=None)
    return run(name, full_output=True, callback=lambda info: info.step == at).state


@EACH
def test_a_stopped_chain_goes_on_with_its_bits(name):
    whole = run(name, full_output=True)
    for at in (1, steps_of(name) // 2, steps_of(name) - 1):
        state = parted(name, at)
        assert state.step == at
        call, own, _ = STAND_INS[name]
        assert torch.equal(call(own, resume=state, full_output=True).samples, whole.samples)
        # The control: the same state with another seed.
        other = dataclasses.replace(state, seed=6)
        if "flow" not in name and not (name == "k-diffusion" and at == steps_of(name) - 1):
            assert not torch.equal(call(own, resume=other, full_output=True).samples, whole.samples)


@EACH
def test_callbacks_trajectories_and_progress(name, capsys):
    seen = []
    options = {"callback": lambda info: seen.append((info.step, info.x.clone()))}
    result = run(name, full_output=True, trajectory=1, progress=True, **options)
    assert len(result.trajectory) == steps_of(name) + 1
    if name != "k-diffusion":
        assert [step for step, _ in seen] == [*range(1, steps_of(name) + 1)]
        for (_, state), frame in zip(seen, result.trajectory[1:], strict=True):
            assert torch.equal(state, frame)
    assert f"{steps_of(name)}/{steps_of(name)}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="trajectory= is returned in the result object"):
        run(name, trajectory=1)


@EACH
def test_norms_of_the_score_are_kept(name):
    if name == "k-diffusion":
        with pytest.raises(ValueError, match="telemetry= needs the score"):
            run(name, full_output=True, telemetry=1)
        return
    told = run(name, full_output=True, telemetry=1).telemetry
    assert told.steps == tuple(range(steps_of(name)))
    assert told.score_norm.shape == told.signal_to_noise.shape == (steps_of(name), len(START))
    assert (told.score_norm > 0).all()


class Failing:
    """A network that returns NaN for one sample from its k-th call on."""

    def __init__(self, net, call):
        self.net, self.call, self.calls = net, call, 0

    def __call__(self, x, *label):
        out = self.net(x, *label)
        if self.calls >= self.call:
            out[2] = math.nan
        self.calls += 1
        return out


@EACH
def test_states_that_are_not_finite_are_raised_reported_or_frozen(name):
    _, own, _ = STAND_INS[name]
    whole = run(name, full_output=True)
    calls = whole.evaluations // steps_of(name)
    with pytest.raises(fl.NonFiniteError, match=r"the first in update 3 \(of .*sample 2\.") as error:
        run(name, Failing(own, 3 * calls))
    assert [(fault.row, fault.step) for fault in error.value.faults] == [(2, 3)]
    others = [0, 1, 3]
    for kind in ("report", "freeze"):
        found = run(name, Failing(own, 3 * calls), full_output=True, non_finite=kind)
        assert [(fault.row, fault.step) for fault in found.faults] == [(2, 3)]
        assert torch.equal(found.samples[others], whole.samples[others])
    assert not last(run(name, Failing(own, 3 * calls), non_finite=None)).isfinite().all()


@EACH
def test_steps_are_captured_where_they_can_be(name, monkeypatch):
    stand_in = StandInGraphs()
    monkeypatch.setattr(replaying, "graphs_for", lambda device: stand_in)
    want = run(name, cuda_graph=False)
    if name in NOT_CAPTURED:
        with pytest.raises(ValueError, match="cuda_graph=True cannot be done"):
            run(name, cuda_graph=True)
        assert torch.equal(last(run(name)), last(want))
        assert stand_in.captured == 0
        return
    found = run(name, cuda_graph=True)
    assert torch.equal(last(found), last(want))
    assert stand_in.captured >= 1
    assert stand_in.replayed >= 3


@EACH
def test_a_misspelt_option_is_named(name):
    with pytest.raises(TypeError, match="there is no option resumes= here"):
        run(name, resumes=None)
    with pytest.raises(TypeError, match=r"there is no option inpainting= here"):
        run(name, inpainting=None)


def test_rows_of_shared_noise_have_all_but_resuming(capsys):
    seen = []
    shown = {"trajectory": 4, "progress": True, "telemetry": 1, "callback": lambda info: seen.append(info.step)}
    result = rows(net, seed=5, full_output=True, **shown)
    assert torch.equal(result.samples, rows(net, seed=5)[-1])
    assert seen == [*range(1, 13)]
    assert len(result.trajectory) == 4
    assert len(result.telemetry.steps) == 12
    assert "12/12" in capsys.readouterr().err
    with pytest.raises(ValueError, match="interpolation takes no resume="):
        rows(net, resume=result.state)


def test_lists_end_where_a_callback_stops_the_chain():
    call, own, _ = STAND_INS["ncsnv2"]
    whole = call(own, seed=5)
    part = call(own, seed=5, keep_every=3, callback=lambda info: info.step == 5)
    assert [len(part), len(whole)] == [2, 13]
    assert torch.equal(part[0], whole[2])
    assert torch.equal(part[1], whole[4])
    assert torch.equal(call(own, seed=5, final_only=True)[0], whole[-1])


def test_a_strict_list_goes_on_where_it_stopped():
    call, own, _ = STAND_INS["ncsn"]
    whole = call(own, seed=5, strict=True, keep_every=2)
    state = parted("ncsn", 5)
    rest = call(own, resume=state, strict=True, keep_every=2)
    assert len(whole) == 6
    assert len(rest) == 3
    assert all(torch.equal(one, other) for one, other in zip(rest, whole[3:], strict=True))
    with pytest.raises(ValueError, match=r"cuda_graph=True replays .* strict=True looks at"):
        call(own, strict=True, cuda_graph=True)


class Halved:
    """A predictor of others."""

    def __init__(self, sde, score_fn, probability_flow=False):
        self.score_fn = score_fn

    def update_fn(self, x, t):
        return x / 2, x / 2 + 0 * self.score_fn(x, t)


def test_classes_of_others_have_all_but_resuming_and_graphs(monkeypatch):
    monkeypatch.setattr(replaying, "graphs_for", lambda device: StandInGraphs())
    others = pc(score_sde.VESDE(0.01, 5.0, 9), "langevin", Halved)
    result = others(net, seed=5, full_output=True, trajectory=3)
    assert torch.equal(result.samples, others(net, seed=5))
    assert len(result.trajectory) == 4
    assert result.evaluations == 18
    with pytest.raises(ValueError, match="resume= needs a predictor and a corrector of this package"):
        others(net, resume=result.state)
    with pytest.raises(ValueError, match="cuda_graph=True cannot be done: score_sde has rows that are functions"):
        others(net, cuda_graph=True)
    with pytest.raises(ValueError, match="order='score' alone: update_fn is a function"):
        others(net, order="noise")
