"""What samplers watch: the first state that is not finite, by its step, level and sample; norms and their ratio."""

import math
import pickle

import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.noise import Address, Purpose
from fastlangevin.ops import NO_FAULT
from fastlangevin.ops.sample_norms import noise_norms, norms_with_noise, sample_norms
from fastlangevin.samplers import Fault, watching
from fastlangevin.storage import stopped_chain

LADDER = [1.0, 0.5, 0.25]
SHAPE = (4, 2, 3, 3)
OPTIONS = {"shape": SHAPE, "seed": 3, "epsilon": 0.02, "steps_per_level": 4}
CALM = {**OPTIONS, "full_output": True}
KNOWN = fl.Inpainting(torch.arange(3) == 0, torch.zeros(SHAPE))


def score(x, labels):
    return -x


class Failing:
    """A score that is NaN for one sample from its k-th call on, or for all samples."""

    def __init__(self, call, row=2, value=math.nan):
        self.call, self.row, self.value, self.calls = call, row, value, 0

    def __call__(self, x, labels=None):
        out = -x
        if self.calls >= self.call:
            out[slice(None) if self.row is None else self.row, ..., -1] = self.value
        self.calls += 1
        return out


def sampler(name, failing, **options):
    """Each sampler, with 12 calls of the score and more; the level of call k."""
    if name == "langevin":
        init = fl.randn(SHAPE, seed=1)
        return fl.langevin(failing, init, steps=12, epsilon=0.02, seed=3, **options), lambda step: None
    if name == "interpolation":
        own = {**OPTIONS, "shape": (2, *SHAPE[1:]), "points": 2, **options}
        return fl.interpolation(failing, LADDER, **own), lambda step: step // 4
    if name == "consistent":
        ladder = fl.geometric_sigmas(1.0, 0.1, 12)
        own = {"shape": SHAPE, "seed": 3, "epsilon": 0.006, **options}
        return fl.consistent_annealed(failing, ladder, **own), lambda step: step
    if name == "predictor_corrector":
        own = {"shape": SHAPE, "seed": 3, "snr": 0.1, "corrector_steps": 3, **options}
        return fl.predictor_corrector(failing, LADDER, **own), lambda step: step // 4
    own = {
        "annealed": {},
        "noise first": {"order": "noise"},
        "inpainting": {"inpainting": KNOWN},
        "clamp": {"clamp": (-9.0, 9.0)},
        "drift": {"drift": lambda x, labels: 0 * x},
    }[name]
    return fl.annealed_langevin(failing, LADDER, **OPTIONS, **own, **options), lambda step: step // 4


NAMES = ["annealed", "noise first", "inpainting", "clamp", "drift", "consistent", "predictor_corrector"]
NAMES += ["interpolation", "langevin"]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_bad_step_is_named_and_nothing_else_changes(name):
    whole, level = sampler(name, Failing(99), full_output=True)
    assert whole.faults == ()
    assert torch.equal(whole.state.fault, torch.full((4,), NO_FAULT))
    blind, _ = sampler(name, Failing(99), non_finite=None, full_output=True)
    assert blind.faults is None
    assert torch.equal(blind.samples, whole.samples)
    for step in (0, 5, 11):
        want = (Fault(2, 2, step, level(step)),)
        for mode in ("report", "freeze"):
            got, _ = sampler(name, Failing(step), non_finite=mode, full_output=True)
            assert got.faults == want
            assert torch.equal(got.samples[[0, 1, 3]], whole.samples[[0, 1, 3]])
        with pytest.raises(fl.NonFiniteError, match=rf"1 of 4 samples are not finite.*update {step} .*sample 2\.") as e:
            sampler(name, Failing(step))
        assert e.value.faults == want
        assert torch.equal(e.value.state.x[[0, 1, 3]].isfinite(), torch.ones_like(whole.samples[[0, 1, 3]]).bool())
    with pytest.raises(fl.NonFiniteError, match=r"4 of 4 .* update 0 .*samples 0, 1, 2, 3\."):
        sampler(name, Failing(0, row=None))


def test_the_error_can_be_sent_by_another_process():
    with pytest.raises(fl.NonFiniteError) as caught:
        fl.annealed_langevin(Failing(5), LADDER, **OPTIONS)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (type(sent), str(sent), sent.faults) == (fl.NonFiniteError, str(caught.value), caught.value.faults)
    options = {"epsilon": 0.02, "steps_per_level": 4, "non_finite": "freeze"}
    one, other = (fl.annealed_langevin(score, LADDER, resume=each.state, **options) for each in (sent, caught.value))
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_a_frozen_sample_keeps_the_state_of_its_first_bad_update():
    got = fl.annealed_langevin(Failing(5), LADDER, **CALM, non_finite="freeze")
    stopped = fl.annealed_langevin(
        Failing(5), LADDER, **CALM, non_finite="report", callback=lambda info: info.step == 6
    )
    torch.testing.assert_close(got.samples[2], stopped.samples[2], rtol=0, atol=0, equal_nan=True)
    assert got.samples[2].isnan().sum() == 6  # the last column; the others are as they were
    assert fl.annealed_langevin(Failing(5), LADDER, **CALM, non_finite="report").samples[2].isnan().sum() == 6
    moved = fl.annealed_langevin(Failing(5), LADDER, **CALM, non_finite="report").samples[2, ..., 0]
    assert not torch.equal(moved, got.samples[2, ..., 0])


@pytest.mark.parametrize(("first", "found"), [(31, 32), (32, 64), (40, 64)])
def test_it_is_found_within_32_updates_of_a_long_chain(first, found):
    failing = Failing(first)
    with pytest.raises(fl.NonFiniteError) as error:
        fl.langevin(failing, torch.zeros(4, 1, 1, 1), steps=5000, epsilon=0.1, seed=1)
    assert (error.value.faults[0].step, error.value.state.step, failing.calls) == (first, found, found)


def test_the_denoise_step_is_watched():
    got = fl.annealed_langevin(Failing(12), LADDER, **CALM, denoise=True, non_finite="report")
    assert got.faults == (Fault(2, 2, 12, 2),)
    with pytest.raises(fl.NonFiniteError, match="in the denoise step at level 2: sample 2") as error:
        fl.annealed_langevin(Failing(12), LADDER, **OPTIONS, denoise=True)
    assert error.value.state.step == 12
    again = fl.annealed_langevin(
        score, LADDER, epsilon=0.02, steps_per_level=4, denoise=True, resume=error.value.state, full_output=True
    )
    assert torch.equal(again.samples, fl.annealed_langevin(score, LADDER, **OPTIONS, denoise=True))


def test_infinities_that_a_clamp_hides_are_found():
    options = {**CALM, "clamp": (-1.0, 1.0), "non_finite": "report"}
    got = fl.annealed_langevin(Failing(3, value=math.inf), LADDER, **options)
    assert got.samples.isfinite().all()
    assert got.faults == (Fault(2, 2, 3, 0),)


def test_sample_ids_are_named():
    got = fl.annealed_langevin(Failing(1), LADDER, **CALM, non_finite="report", sample_offset=100)
    assert got.faults[0].sample_id == 102
    got = fl.annealed_langevin(Failing(1), LADDER, **CALM, non_finite="report", sample_ids=[9, 8, 77, 6])
    assert got.faults[0].sample_id == 77


@pytest.mark.parametrize("mode", ["report", "freeze"])
def test_records_survive_a_stop_on_disk(mode, tmp_path):
    options = {**CALM, "non_finite": mode, "telemetry": 3}
    whole = fl.annealed_langevin(Failing(5), LADDER, **options)
    rest = {key: value for key, value in options.items() if key not in ("seed", "shape")}
    for stop in (2, 6, 11):
        left = fl.annealed_langevin(Failing(5), LADDER, **options, callback=lambda info, stop=stop: info.step == stop)
        stopped_chain.save(tmp_path / "left", left.state)
        state = stopped_chain.load(tmp_path / "left")
        got = fl.annealed_langevin(Failing(max(5 - stop, 0)), LADDER, **rest, resume=state)
        assert got.faults == whole.faults == (Fault(2, 2, 5, 1),)
        torch.testing.assert_close(got.samples, whole.samples, rtol=0, atol=0, equal_nan=True)
        assert got.telemetry.steps == whole.telemetry.steps == (2, 5, 8, 11)
        assert got.telemetry.levels == (0, 1, 2, 2)
        for name in ("score_norm", "signal_to_noise"):
            one, other = (getattr(each.telemetry, name) for each in (got, whole))
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    resumed = {**rest, "telemetry": 0}
    with pytest.raises(fl.NonFiniteError, match="update 5 "):
        fl.annealed_langevin(Failing(0), LADDER, **{**resumed, "non_finite": "raise"}, resume=state)


def test_what_an_error_carries_goes_on():
    with pytest.raises(fl.NonFiniteError) as error:
        fl.annealed_langevin(Failing(5), LADDER, **OPTIONS)
    options = {"epsilon": 0.02, "steps_per_level": 4, "full_output": True, "non_finite": "freeze"}
    got = fl.annealed_langevin(score, LADDER, **options, resume=error.value.state)
    whole = fl.annealed_langevin(score, LADDER, **OPTIONS)
    assert torch.equal(got.samples[[0, 1, 3]], whole[[0, 1, 3]])
    assert got.faults == (Fault(2, 2, 5, 1),)


def test_a_state_of_an_earlier_version_is_read(tmp_path, monkeypatch):
    left = fl.annealed_langevin(score, LADDER, **CALM, callback=lambda info: info.step == 2, non_finite=None)
    real = stopped_chain.container.write

    def older(path, tensors, description):
        del description["chain"]["telemetry"]
        real(path, tensors, description)

    monkeypatch.setattr(stopped_chain.container, "write", older)
    stopped_chain.save(tmp_path / "left", left.state)
    state = stopped_chain.load(tmp_path / "left")
    assert state.fault is None
    assert state.telemetry is None
    whole = fl.annealed_langevin(score, LADDER, epsilon=0.02, steps_per_level=4, resume=state)
    assert torch.equal(whole, fl.annealed_langevin(score, LADDER, **OPTIONS))


def test_telemetry_is_what_the_formula_says(impl):
    states = []
    got = fl.annealed_langevin(
        score, LADDER, **CALM, impl=impl, telemetry="level", trajectory=1, callback=lambda info: states.append(info)
    )
    told = got.telemetry
    assert told.steps == (3, 7, 11)
    assert told.levels == (0, 1, 2)
    for row, (step, (_, a, b)) in enumerate(zip(told.steps, rules.annealed(LADDER, 0.02), strict=True)):
        s = -got.trajectory[step]
        z = fl.randn(SHAPE, seed=3, draw=step, purpose=Purpose.LANGEVIN)
        assert torch.equal(told.score_norm[row], sample_norms(s, impl="reference"))
        norm, other = (each.double().flatten(1).norm(dim=1) for each in (s, z))
        # The roundings of two norms of 18 elements, three products and a quotient: each at most a few 2^-24.
        torch.testing.assert_close(told.signal_to_noise[row].double(), a * norm / (b * other), rtol=2e-6, atol=0)
        wrong = fl.randn(SHAPE, seed=3, draw=step + 1, purpose=Purpose.LANGEVIN).double().flatten(1).norm(dim=1)
        assert not torch.allclose(told.signal_to_noise[row].double(), a * norm / (b * wrong), rtol=1e-4)
    assert torch.equal(got.samples, fl.annealed_langevin(score, LADDER, **OPTIONS))


@pytest.mark.parametrize("name", NAMES)
def test_telemetry_of_every_sampler(name):
    got, level = sampler(name, Failing(99), full_output=True, telemetry=1)
    told = got.telemetry
    assert told.steps == tuple(range(12))
    assert told.levels == tuple(level(step) for step in range(12))
    assert told.score_norm.shape == told.signal_to_noise.shape == (12, 4)
    assert (told.score_norm > 0).all()
    finite = told.signal_to_noise.isfinite().all(1)
    # Consistent annealed sampling adds no noise at its last level.
    assert finite.tolist() == [True] * 11 + [name != "consistent"]
    assert torch.equal(got.samples, sampler(name, Failing(99))[0])
    if name == "predictor_corrector":  # 2 (snr ||z||/||s||)^2 ||s|| / sqrt(4 (snr ||z||/||s||)^2) / ||z|| = snr
        torch.testing.assert_close(told.signal_to_noise[[0, 1, 2]], torch.full((3, 4), 0.1), rtol=1e-6, atol=0)


def test_telemetry_of_a_chain_without_levels():
    own = {"epsilon": 0.1, "seed": 1, "full_output": True}
    got = fl.langevin(lambda x: -x, torch.ones(2, 3), steps=10, telemetry="level", **own)
    assert got.telemetry.steps == (9,)
    assert got.telemetry.levels == (None,)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.ones(2, 3, dtype=dtype)
        got, kept = (fl.langevin(lambda x: -x, x, steps=2, telemetry=every, **own).telemetry for every in (3, 1))
        assert got.score_norm.shape == got.signal_to_noise.shape == (0, 2)
        assert {got.score_norm.dtype, got.signal_to_noise.dtype} == {kept.score_norm.dtype}
        assert kept.score_norm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3, 1), (3, 7), (20, 12), (3, 130), (2, 1025), (2, 3, 16, 21)], ids=str)
def test_norms_have_one_order_everywhere(impl, shape, dtype):
    x = fl.randn(shape, seed=1).to(dtype)
    address = Address(5, 2, None, 9, Purpose.LANGEVIN)
    want = norms_with_noise(x, address, impl="reference")
    got = norms_with_noise(x, address, impl=impl)
    assert all(map(torch.equal, got, want))
    assert torch.equal(sample_norms(x, impl=impl), want[0])
    assert torch.equal(noise_norms(x, address, impl=impl), want[1])
    given = fl.randn(shape, **address._asdict())
    assert torch.equal(norms_with_noise(x, noise=given, impl=impl)[1].to(want[1].dtype), want[1])
    permuted = x.transpose(0, -1).contiguous().transpose(0, -1)
    assert all(map(torch.equal, norms_with_noise(permuted, address, impl=impl), want))
    # A square, at most 12 sums by halves and a root, each rounded once, in fp32 at the least.
    exact = x.double().flatten(1).norm(dim=1)
    torch.testing.assert_close(want[0].double(), exact, rtol=16 * 2.0**-24, atol=0)


def test_every_instruction_set_sums_alike():
    cpp = pytest.importorskip("fastlangevin.kernels.cpp.native")
    x = fl.randn((5, 3465), seed=1)
    address = Address(7, 0, None, 0, Purpose.LANGEVIN)
    want = norms_with_noise(x, address, impl="reference")
    try:
        for name in cpp.instruction_sets():
            cpp.use_instruction_set(name)
            assert all(map(torch.equal, norms_with_noise(x, address, impl="cpp"), want)), name
    finally:
        cpp.use_instruction_set(None)


def test_the_host_looks_no_more_often_than_it_says(monkeypatch):
    looks = []
    real = watching.Watch.check

    def counted(self, done, state, *, now=False):
        looks.append(done) if now or done % watching.EVERY == 0 else None
        real(self, done, state, now=now)

    monkeypatch.setattr(watching.Watch, "check", counted)
    fl.annealed_langevin(score, LADDER, **{**OPTIONS, "steps_per_level": 25})
    assert looks == [32, 64, 75]
