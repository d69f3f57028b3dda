"""compat.k_diffusion against the k-diffusion package itself, where it is installed.

It wants NumPy below 2 by one of its dependencies (dctorch) and setuptools below 81 by another (clip-anytorch imports
pkg_resources), so it is no dependency of the tests. Seen to pass with k-diffusion 0.1.1.post1 and PyTorch 2.14.1.
"""

import inspect
import warnings
from itertools import pairwise

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import k_diffusion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    theirs = pytest.importorskip("k_diffusion.sampling")

SEED = 11
SIGMAS = torch.tensor([8.0, 3.0, 1.0, 0.3, 0.0], dtype=torch.float64)
PAIRS = list(pairwise(SIGMAS.tolist()))
# One noise a step, each between neighbours in the ladder. Those of the last have noise at every step but the last.
FITTING = (
    "sample_euler_ancestral",
    "sample_dpm_2_ancestral",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_3m_sde",
)
# Some 10 roundings of numbers below 30 in each of 4 steps, which shrink the state.
ROUNDED = 40 * 30 * 2.0**-53


def denoiser(x, sigma):
    return x / (1 + sigma.reshape(-1, *(1,) * (x.ndim - 1)) ** 2) + 0.1 * torch.sin(x)


def start(samples=5):
    return 8 * fl.randn((samples, 2, 3), seed=2, dtype=torch.float64)


def sampled(name, x, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(theirs, name)(denoiser, x, SIGMAS, disable=True, **options)


def test_the_signature_begins_with_theirs():
    def listed(function):
        return [(each.name, each.default) for each in inspect.signature(function).parameters.values()]

    wanted = listed(theirs.sample_euler_ancestral)
    assert listed(k_diffusion.sample_euler_ancestral)[: len(wanted)] == wanted


@pytest.mark.parametrize(("eta", "s_noise"), [(1.0, 1.0), (0.6, 1.1), (0.0, 1.0)])
def test_the_fused_sampler_is_theirs(eta, s_noise):
    x = start()
    options = {"eta": eta, "s_noise": s_noise}
    expected = sampled(
        "sample_euler_ancestral", x, noise_sampler=k_diffusion.noise_sampler(x, SIGMAS, seed=SEED), **options
    )
    found = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True, seed=SEED, **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDED)
    other = k_diffusion.sample_euler_ancestral(denoiser, x, SIGMAS, disable=True, seed=SEED + 1, **options)
    assert torch.allclose(other, expected, rtol=0, atol=ROUNDED) is (eta == 0)


@pytest.mark.parametrize("name", FITTING)
def test_their_samplers_take_addressed_noise(name):
    """Each step asks once, for neighbours; and a sample no longer depends on its batch, as it does with their noise."""
    x = start()
    asked = []

    made = k_diffusion.noise_sampler(x, SIGMAS, seed=SEED)

    def noise(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return made(sigma, sigma_next)

    whole = sampled(name, x, noise_sampler=noise)
    torch.testing.assert_close(torch.tensor(asked), torch.tensor(PAIRS[:3]))
    part = sampled(name, x[3:4], noise_sampler=k_diffusion.noise_sampler(x[3:4], SIGMAS, seed=SEED, sample_offset=3))
    assert torch.equal(part, whole[3:4])
    torch.manual_seed(0)
    whole = sampled(name, x)
    torch.manual_seed(0)
    assert not torch.equal(sampled(name, x[3:4]), whole[3:4])


def test_one_that_needs_a_path_is_refused():
    x = start()
    with pytest.raises(ValueError, match="Brownian path"):
        sampled("sample_dpmpp_sde", x, noise_sampler=k_diffusion.noise_sampler(x, SIGMAS, seed=SEED))
