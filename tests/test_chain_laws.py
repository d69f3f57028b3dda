"""The exact laws of chains on mixtures, against as many chains as a second allows; and twins that must be caught."""

import math

import pytest
import torch

import fastlangevin as fl
from benchmarks.chain import mixture_providers, wrong
from fastlangevin import rules
from tests.long.law import whole_chains

CPU = torch.device("cpu")


def test_noise_off_by_half_a_percent_is_caught():
    # The script has 10^8 chains for 0.1 %; 4 x 10^6 have 0.5 % at 14 standard deviations.
    assert abs(whole_chains(4_000_000, CPU)["variance"]) < 5
    assert whole_chains(4_000_000, CPU, noise=1.005)["variance"] > 9
    assert whole_chains(4_000_000, CPU, noise=0.995)["variance"] < -9


def test_the_benchmark_takes_only_providers_of_the_same_law():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        calls = mixture_providers(20_000, 30, CPU)
        samples = {name: call() for name, call in calls.items()}
    assert torch.equal(samples["loop"], samples["chain"])
    assert all(wrong(each, samples["chain"]) is None for each in samples.values())
    assert wrong(1.05 * samples["eager"], samples["chain"])
    assert wrong(mixture_providers(20_000, 15, CPU)["chain"](), samples["chain"])


MIXTURE = fl.GaussianMixture([0.3, 0.7], [[-1.5], [1.0]], [0.2, 0.4])
SIGMAS = [1.5, 0.7, 0.3]
UPDATES, EPSILON = 6, 0.06
EDGES = (-2.0, -1.0, 0.0, 1.0, 2.0)


def grid_law(mixture):
    """The chance of each interval between EDGES at the end: the transition kernel, iterated on a fine grid in fp64.

    The chain starts from N(0, sigma_1^2). The smallest noise is 24 steps of the grid, so that sums over it differ from
    the integrals of the Gaussian kernel by less than exp(-2 pi^2 24^2); EDGES are midpoints, where a sum over an
    interval is its integral to width^2/24 times the slope of the density, below 1e-5.
    """
    width = 0.01
    grid = (torch.arange(-1400, 1400, dtype=torch.float64) + 0.5) * width

    def normal(x, deviation):
        return torch.exp(-(x**2) / (2 * deviation**2)) / (deviation * math.sqrt(2 * math.pi))

    density = normal(grid, SIGMAS[0])
    for sigma, (_, a, b) in zip(SIGMAS, rules.annealed(SIGMAS, EPSILON), strict=True):
        score = mixture.closed_form(grid[:, None], torch.tensor([sigma], dtype=torch.float64))[:, 0]
        kernel = normal(grid[:, None] - (grid + a * score)[None], b) * width
        for _ in range(UPDATES):
            density = kernel @ density
    assert abs(density.sum().item() * width - 1) < 1e-8
    places = torch.bucketize(grid, torch.tensor(EDGES, dtype=torch.float64))
    return torch.zeros(len(EDGES) + 1, dtype=torch.float64).index_add_(0, places, density * width)


def chances(mixture, count, **options):
    x = fl.annealed_langevin(
        mixture, SIGMAS, shape=(count, 1), init="normal", epsilon=EPSILON, steps_per_level=UPDATES, seed=6, **options
    )
    return (
        torch.bincount(torch.bucketize(x[:, 0].double(), torch.tensor(EDGES, dtype=torch.float64)), minlength=6) / count
    )


def deviations(found, want, count):
    return ((found - want).abs() / (want * (1 - want) / count).sqrt()).max().item()


def test_intervals_have_the_chances_of_the_transition_kernel():
    want, count = grid_law(MIXTURE), 2_000_000
    assert deviations(chances(MIXTURE, count), want, count) < 5
    # What must be caught: other weights, noise 1 % too large, and the law that the chain only aims at.
    other = fl.GaussianMixture([0.305, 0.695], MIXTURE.means, MIXTURE.variances)
    assert deviations(chances(other, count), want, count) > 6
    assert deviations(chances(MIXTURE, count, temperature=1.02), want, count) > 6
    target = MIXTURE.sample(count, sigma=SIGMAS[-1], seed=1)[:, 0].double()
    aimed = torch.bincount(torch.bucketize(target, torch.tensor(EDGES, dtype=torch.float64)), minlength=6) / count
    assert deviations(aimed, want, count) > 50


@pytest.mark.parametrize("features", [2, 3])
def test_elements_of_a_chain_have_noise_of_their_own(features):
    gaussian = fl.GaussianMixture([1.0], [[0.0] * features], 1.0)
    count = 300_000
    x = fl.langevin(gaussian, torch.zeros(count, features), steps=4, epsilon=0.5, seed=2).double()
    correlation = torch.corrcoef(x.T) - torch.eye(features, dtype=torch.float64)
    assert correlation.abs().max() < 5 / math.sqrt(count)
    neighbours = (x[1:, 0] * x[:-1, 0]).mean() / x[:, 0].var()
    assert abs(neighbours) < 5 / math.sqrt(count)
