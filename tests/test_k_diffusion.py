"""compat.k_diffusion against k-diffusion's update in fp64, its exact law, and the addresses of its noise."""

import math
from itertools import pairwise

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


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_it_has_its_exact_law_on_a_gaussian(eta):
    """D = s0^2 x/(s0^2 + sigma^2) on data N(0, s0^2)."""
    s0, sigmas = 0.5, [8.0, 3.0, 1.0, 0.3]

    def law(ratio=True):
        variance = 64.0
        for s, after in pairwise(sigmas):
            up = min(after, eta * after * (math.sqrt(s**2 - after**2) / (s if ratio else 1.0)))
            down = math.sqrt(after**2 - up**2)
            variance *= (1 + (down - s) / s * (s**2 / (s0**2 + s**2))) ** 2
            variance += up**2
        return variance

    x = k_diffusion.sample_euler_ancestral(
        lambda x, s: x * (s0**2 / (s0**2 + s[0] ** 2)), start((2**14, 16), torch.float32), sigmas, disable=True,
        eta=eta, seed=SEED,
    )  # fmt: skip
    found = float((x.double() ** 2).mean())

    def error(expected):
        return abs(found / expected - 1) / math.sqrt(2 / x.numel())

    assert error(law()) < 6
    assert error(law(ratio=False)) > 6


@pytest.mark.gpu
def test_on_a_device():
    x = start(dtype=torch.float32)
    here = k_diffusion.sample_euler_ancestral(lambda x, s: 0.5 * x, x, SIGMAS, disable=True, seed=SEED)
    there = k_diffusion.sample_euler_ancestral(lambda x, s: 0.5 * x, x.cuda(), SIGMAS.cuda(), disable=True, seed=SEED)
    assert torch.equal(there.cpu(), here)
    sampler = k_diffusion.noise_sampler(x.cuda(), SIGMAS.cuda(), seed=SEED)
    for i in range(3):
        assert torch.equal(sampler(*SIGMAS[i : i + 2].cuda()).cpu(), recorded(i).float())
