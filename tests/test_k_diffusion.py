"""compat.k_diffusion against k-diffusion's update in fp64, its exact law, and the addresses of its noise."""

import dataclasses
import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import k_diffusion
from fastlangevin.noise import Purpose

SEED = 11
SIGMAS = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0], dtype=torch.float64)
SHAPE = (4, 2, 3)
# Some 10 roundings of numbers below 30 in each of 4 steps, which shrink the state.
ROUNDED = 40 * 30 * 2.0**-53


def denoiser(x, sigma, shift=0.0):
    return x / (1 + sigma.reshape(-1, *(1,) * (x.ndim - 1)) ** 2) + 0.1 * torch.sin(x) + shift


def start(shape=SHAPE, dtype=torch.float64):
    return 8 * fl.randn(shape, seed=2, dtype=dtype)


def recorded(draw, **options):
    return fl.randn(SHAPE, seed=SEED, draw=draw, purpose=Purpose.LANGEVIN, dtype=torch.float64, **options)


def published(x, sigmas, z, eta=1.0, s_noise=1.0, ratio=True, sign=1):
    """k-diffusion's loop, with ``z(i, sigma, sigma_next)`` for its noise sampler."""
    for i in range(len(sigmas) - 1):
        s, after = sigmas[i], sigmas[i + 1]
        denoised = denoiser(x, s.expand(len(x)))
        part = (s**2 - after**2) / s**2 if ratio else s**2 - after**2
        up = min(after, eta * (after**2 * part) ** 0.5)
        down = (after**2 - up**2) ** 0.5
        x = x + sign * (x - denoised) / s * (down - s)
        if after > 0:
            x = x + z(i, s, after) * s_noise * up
    return x


@pytest.mark.parametrize("sigmas", [SIGMAS, SIGMAS[:-1]], ids=["to zero", "to a level"])
@pytest.mark.parametrize(("eta", "s_noise"), [(1.0, 1.0), (0.6, 1.1), (0.0, 1.0), (3.0, 1.0)])
def test_it_is_the_published_update(sigmas, eta, s_noise):
    x = start()
    before = x.clone()
    found = k_diffusion.sample_euler_ancestral(denoiser, x, sigmas, disable=True, eta=eta, s_noise=s_noise, seed=SEED)
    assert torch.equal(x, before)

    def close(**mutant):
        draw = mutant.pop("draw", 0)
        options = {"eta": eta, "s_noise": s_noise, **mutant}
        expected = published(x, sigmas, lambda i, s, after: recorded(i + draw), **options)
        return torch.allclose(found, expected, rtol=0, atol=ROUNDED)

    assert close()
    assert not close(sign=-1)
    assert close(draw=1) is (eta == 0)
    assert close(s_noise=1.3) is (eta == 0)
    # With eta = 3 the noise is that of the next level, where the published minimum caps it, with and without the ratio.
    assert close(ratio=False) is (eta in (0, 3))


def test_the_noise_sampler_serves_their_loop_and_ours():
    x = start()
    ours = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True, seed=SEED)
    sampler = k_diffusion.noise_sampler(x, SIGMAS, seed=SEED)
    theirs = published(x, SIGMAS, lambda i, s, after: sampler(s, after))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ROUNDED)
    given = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True, noise_sampler=sampler)
    assert torch.equal(ours, given)
    foreign = k_diffusion.sample_euler_ancestral(
        denoiser, x, SIGMAS, disable=True, noise_sampler=lambda s, after: sampler(s, after)
    )
    assert torch.equal(ours, foreign)


def test_the_draw_is_the_place_in_the_ladder():
    x = start()
    sampler = k_diffusion.noise_sampler(x, SIGMAS.float(), seed=SEED)
    for i in range(3):
        for s, after in (SIGMAS[i : i + 2], SIGMAS[i : i + 2].tolist(), SIGMAS[i : i + 2].float().log().exp()):
            assert torch.equal(sampler(s, after), recorded(i))
    assert not torch.equal(sampler(8.0, 3.0), sampler(3.0, 1.0))
    late = [
        k_diffusion.sample_euler_ancestral(denoiser, x, ladder, disable=True, noise_sampler=sampler)
        for ladder in (SIGMAS[1:], SIGMAS[1:3])
    ]
    on = k_diffusion.sample_euler_ancestral(denoiser, late[1], SIGMAS[2:], disable=True, noise_sampler=sampler)
    assert torch.equal(late[0], on)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_sample_does_not_depend_on_its_batch(dtype):
    x = start((5, 7), dtype)
    options = {"disable": True, "seed": SEED}
    together = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, **options)
    assert together.dtype == dtype
    alone = k_diffusion.sample_euler_ancestral(denoiser, x[[3, 1]], SIGMAS, sample_ids=[3, 1], **options)
    assert torch.equal(alone, together[[3, 1]])
    shifted = k_diffusion.sample_euler_ancestral(denoiser, x[2:4], SIGMAS, sample_offset=2, **options)
    assert torch.equal(shifted, together[2:4])
    assert not torch.equal(k_diffusion.sample_euler_ancestral(denoiser, x[2:4], SIGMAS, **options), together[2:4])


def test_a_noise_sampler_of_another_batch_serves_where_its_samples_fit():
    x = start((5, 7))
    sampler = k_diffusion.noise_sampler(x, SIGMAS, seed=SEED)
    options = {"disable": True, "noise_sampler": sampler}
    together = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, **options)
    assert torch.equal(k_diffusion.sample_euler_ancestral(denoiser, x[:2], SIGMAS, **options), together[:2])
    options["noise_sampler"] = k_diffusion.noise_sampler(x[:2], SIGMAS, seed=SEED, sample_ids=[3, 1])
    with pytest.raises(ValueError, match=r"sample_ids must be int64 of shape \(5,\)"):
        k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, **options)


def test_callbacks_and_extra_arguments():
    seen = []
    x = start()
    found = k_diffusion.sample_euler_ancestral(
        denoiser, x, SIGMAS, extra_args={"shift": 0.5}, callback=seen.append, disable=True, seed=SEED
    )
    plain = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, extra_args={"shift": 0.5}, disable=True, seed=SEED)
    assert torch.equal(found, plain)
    assert [each["i"] for each in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[0]["x"], x)
    for each in seen:  # what a callback keeps is not overwritten
        assert torch.equal(each["denoised"], denoiser(each["x"], each["sigma"].expand(4), shift=0.5))
        assert each["sigma"] == each["sigma_hat"] == SIGMAS[each["i"]]
    assert torch.equal(found, seen[-1]["denoised"])


def test_without_a_seed_torch_governs():
    x = start()
    torch.manual_seed(0)
    one, two = (k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(one, k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True))
    assert not torch.equal(one, two)


def test_a_run_that_was_stopped_goes_on_and_what_is_kept_is_that_of_our_samplers():
    x = start()
    options = {"disable": True, "seed": SEED, "full_output": True}
    whole = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, trajectory=1, **options)
    assert whole.trajectory.shape == (5, *SHAPE)
    assert torch.equal(whole.trajectory[0], x)
    assert whole.evaluations == 4
    begun = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS[:3], **options)
    state = dataclasses.replace(begun.state, record=whole.record)
    seen = []
    rest = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True, resume=state, callback=seen.append)
    assert torch.equal(rest, whole.samples)
    assert [each["i"] for each in seen] == [2, 3]
    with pytest.raises(ValueError, match=r"eta was 1\.0 and is now 0.5"):
        k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True, resume=state, eta=0.5)
    with pytest.raises(ValueError, match="resume= is a state of another chain: sigmas was"):
        k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True, resume=begun.state)
    with pytest.raises(ValueError, match=r"telemetry= needs the score, .* returns 'denoised'"):
        k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, telemetry=1, **options)
    with pytest.raises(TypeError, match="no option shape= here"):
        k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, shape=(1,))


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_it_has_its_exact_law_on_a_gaussian(eta):
    """D = s0^2 x/(s0^2 + sigma^2) on data N(0, s0^2)."""
    s0, sigmas = 0.5, [8.0, 3.0, 1.0, 0.3]

    def law(eta):
        scheme = fl.schemes.euler_ancestral(sigmas, eta=eta)._replace(total=3)
        return scheme.law(0.0, s0**2, init=(0.0, 64.0)).variance

    x = k_diffusion.sample_euler_ancestral(
        lambda x, s: x * (s0**2 / (s0**2 + s[0] ** 2)), start((2**14, 16), torch.float32), sigmas, disable=True,
        eta=eta, seed=SEED,
    )  # fmt: skip
    found = float((x.double() ** 2).mean())

    def error(expected):
        return abs(found / expected - 1) / math.sqrt(2 / x.numel())

    assert error(law(eta)) < 6
    assert error(law(0.5 * eta)) > 6


@pytest.mark.gpu
def test_on_a_device():
    x = start(dtype=torch.float32)
    here = k_diffusion.sample_euler_ancestral(lambda x, s: 0.5 * x, x, SIGMAS, disable=True, seed=SEED)
    there = k_diffusion.sample_euler_ancestral(lambda x, s: 0.5 * x, x.cuda(), SIGMAS.cuda(), disable=True, seed=SEED)
    assert torch.equal(there.cpu(), here)
    sampler = k_diffusion.noise_sampler(x.cuda(), SIGMAS.cuda(), seed=SEED)
    for i in range(3):
        assert torch.equal(sampler(*SIGMAS[i : i + 2].cuda()).cpu(), recorded(i).float())


# States that are not finite


class Failing:
    """A model that is NaN, or infinite, for one sample from its k-th call on."""

    def __init__(self, call, row=2, value=math.nan):
        self.call, self.row, self.value, self.calls = call, row, value, 0

    def __call__(self, x, sigma):
        out = x / 2
        if self.calls >= self.call:
            out[self.row, ..., -1] = self.value
        self.calls += 1
        return out


NEVER = 10**9


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"eta": 0.0}, {"callback": lambda info: None}], ids=["plain", "flow", "kept"])
def test_a_state_that_is_not_finite_is_told_of(options, value):
    options = {"disable": True, "seed": SEED, **options}
    for dtype in (torch.float64, torch.float16):
        x = start(dtype=dtype)
        whole = k_diffusion.sample_euler_ancestral(Failing(NEVER), x, SIGMAS, **options)
        assert whole.isfinite().all()  # and nothing was told of
        for step in range(4):
            said = (
                rf"1 of 4 samples are not finite, the first in update {step} \(of 4, from 0\) at level {step}: sample 5"
            )
            with pytest.raises(fl.NonFiniteError, match=said) as told:
                k_diffusion.sample_euler_ancestral(Failing(step, value=value), x, SIGMAS, sample_offset=3, **options)
            assert told.value.faults == (fl.samplers.Fault(2, 5, step, step),)
            state = told.value.state
            assert (state.step, state.seed, state.sample_offset) == (4, SEED, 3)
            assert state.x.isfinite().flatten(1).all(1).tolist() == [True, True, False, True]
            kept = {"sample_offset": 3, "resume": state, "non_finite": "freeze", **options}
            rest = k_diffusion.sample_euler_ancestral(Failing(NEVER), x, SIGMAS, **kept)
            healthy = k_diffusion.sample_euler_ancestral(Failing(NEVER), x, SIGMAS, sample_offset=3, **options)
            good = [0, 1, 3]
            assert torch.equal(rest[good], healthy[good])
            assert not torch.equal(rest, healthy)


def test_noise_samplers_and_ids_of_a_state_that_is_not_finite():
    x = start()
    sampler = k_diffusion.noise_sampler(x, SIGMAS, seed=SEED, sample_ids=[7, 1, 9, 4])

    def run(model, noise):
        return k_diffusion.sample_euler_ancestral(model, x, SIGMAS[1:], disable=True, noise_sampler=noise)

    def foreign(s, after):
        return sampler(s, after)

    # The number is the step's in this run, also where its draws have others.
    for noise, named in ((sampler, 9), (foreign, 2)):
        assert run(Failing(NEVER), noise).isfinite().all()
        with pytest.raises(fl.NonFiniteError, match=rf"update 1 .*at level 1: sample {named}\."):
            run(Failing(1), noise)


@pytest.mark.parametrize(("first", "calls"), [(31, 32), (32, 64), (40, 64), (70, 70 + 3)])
def test_a_long_chain_is_looked_at_every_32_steps(first, calls):
    x, ladder = start(), torch.linspace(8, 1, 74, dtype=torch.float64)
    assert k_diffusion.sample_euler_ancestral(Failing(NEVER), x, ladder, disable=True, seed=SEED).isfinite().all()
    failing = Failing(first)
    with pytest.raises(fl.NonFiniteError, match=f"update {first} ") as told:
        k_diffusion.sample_euler_ancestral(failing, x, ladder, disable=True, seed=SEED)
    assert failing.calls == told.value.state.step == calls


def test_a_finite_run_waits_for_no_record_between_looks(monkeypatch):
    """A look is one read of a number; there is one in 32 steps, and one at the end."""
    reads = []
    own = torch.Tensor.__int__
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: reads.append(1) or own(self))
    for steps, looks in ((31, 1), (32, 1), (33, 2), (96, 3)):
        reads.clear()
        ladder = torch.linspace(8, 1, steps + 1, dtype=torch.float64)
        k_diffusion.sample_euler_ancestral(Failing(NEVER), start(), ladder, disable=True, seed=SEED)
        assert len(reads) == looks


def test_states_of_one_dimension_and_without_elements_are_looked_at():
    for shape in ((0, 3), (3, 0), (4,)):
        got = k_diffusion.sample_euler_ancestral(Failing(NEVER, row=0), start(shape), SIGMAS, disable=True, seed=SEED)
        assert got.shape == shape
    with pytest.raises(fl.NonFiniteError, match="samples 0, 1, 2, 3"):
        k_diffusion.sample_euler_ancestral(lambda x, s: x * math.nan, start((4,)), SIGMAS, disable=True, seed=SEED)
