"""Whole chains on mixtures in one call: the bits of the loop on every implementation, wherever they begin and stop."""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin import runtime
from fastlangevin.chain_score import Run, Segment
from fastlangevin.mixture import PerturbedMixture
from fastlangevin.noise import Address, Purpose
from fastlangevin.rules import Coefficients

SIGMAS = fl.geometric_sigmas(3.0, 0.3, 4)


@pytest.fixture(params=["cpp", "triton"])
def kernel(request):
    """An implementation with a chain kernel that runs on CPU tensors here."""
    if request.param == "triton":
        pytest.importorskip("triton")
        if torch.cuda.is_available():
            pytest.skip("with a CUDA device Triton compiles for it: see test_gpu.py")
    if runtime.explain("cpu")[request.param] != "available":
        pytest.skip(f"{request.param} does not run here")
    return request.param


def make(components, features, diagonal=False):
    weights = fl.rand((components,), seed=1, draw=1, dtype=torch.float64) + 0.1
    variances = 0.05 + fl.rand((components, features) if diagonal else (components,), seed=1, draw=2)
    return fl.GaussianMixture(weights / weights.sum(), 2 * fl.randn((components, features), seed=1), variances)


def annealed(score, shape, steps=5, **options):
    made = {"epsilon": 0.02, "steps_per_level": steps, "seed": 4, "full_output": True, "denoise": True} | options
    return fl.annealed_langevin(score, SIGMAS, shape=shape, **made)


def by_the_loop(mixture):
    """The score without its chain kernel."""
    score = mixture.perturbed(SIGMAS)
    return lambda x, labels: score(x, labels)


def same(one, other):
    assert torch.equal(one.samples, other.samples)
    assert torch.equal(one.state.x, other.state.x)
    assert (one.trajectory is None) == (other.trajectory is None)
    assert one.trajectory is None or torch.equal(one.trajectory, other.trajectory)
    assert (one.evaluations, one.state.step) == (other.evaluations, other.state.step)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("components", "features", "batch"),
    [
        (1, 1, 5),
        (3, 2, 140),
        (2, 3, 16),
        (2, 4, 3),
        (8, 2, 37),
        (25, 4, 3),
        (2, 5, 3),
        (5, 7, 33),
        (4, 16, 2),
        (2, 64, 2),
    ],
)
def test_a_chain_has_the_bits_of_the_loop(kernel, components, features, batch, diagonal):
    mixture = make(components, features, diagonal)
    if kernel == "triton" and components * features > 10:
        pytest.skip("too long for Triton's interpreter")
    steps = 5 if kernel == "cpp" else 1
    for options in (
        {"trajectory": 3, "temperature": 0.5},
        {"corrector": "ou", "sample_offset": 2**40 + 5, "seed": 2**63 + 9},
        {"seed": torch.arange(batch) * 2**33 - 7, "sample_ids": torch.arange(batch) * 2**30 + 3},
    ):
        whole = annealed(mixture, (batch, features), steps, impl=kernel, **options)
        same(whole, annealed(by_the_loop(mixture), (batch, features), steps, impl="reference", **options))


def by_updates(score, x, segment):
    """A segment in the reference's operations."""
    address, frames = segment.address, []
    for rule, level, times in segment.runs:
        for _ in range(times):
            found = score(x, torch.full((len(x),), level))
            fl.step_(x, found, c=rule.c, a=rule.a, b=rule.b, impl="reference", **address._asdict())
            address = address._replace(draw=address.draw + 1)
            if address.draw % segment.every == 0:
                frames.append(x.clone())
    return frames


@pytest.mark.parametrize(
    ("components", "features", "diagonal"),
    [(3, 5, False), (8, 8, True), (1, 16, False), (3, 33, True), (1, 64, False), (8, 64, True)],
)
def test_many_elements_have_the_bits_of_the_reference(kernel, components, features, diagonal):
    """With and without noise and a factor of the state, in two calls: as a chain that is stopped and resumed."""
    mixture, count = make(components, features, diagonal), 5
    score = PerturbedMixture(mixture, [2.0, 0.5], "reference")
    runs = [Run(Coefficients(1.0, 0.2, None), 0, 1), Run(Coefficients(0.9, 0.1, 0.3), 1, 2)]
    address = Address(2**63 + 9, 3, None, 2**40 + 5, Purpose.LANGEVIN)
    if features % 2:
        seeds, ids = torch.arange(count) * 2**33 - 7, torch.arange(count) * 2**30 + 3
        address = address._replace(seed=seeds, sample_ids=ids, sample_offset=0)
    # In fp64, which states far from the law have, 64 elements take Triton's interpreter too long.
    near = features == 64 and kernel == "triton"
    x = mixture.sample(count, seed=5) if near else 2 * fl.randn((count, features), seed=5)
    whole, got = x.clone(), x.clone()
    frames = by_updates(score, whole, Segment(address, runs, 2, None))
    assert len(frames) == 2
    for draw, part, frame in ((3, runs[:1], frames[:1]), (4, runs[1:], frames[1:])):
        kept = torch.empty(1, count, features)
        score.chain_kernel(got, kernel)(got, Segment(address._replace(draw=draw), part, 2, kept))
        assert torch.equal(kept, torch.stack(frame))
    assert torch.equal(got, whole)
    if diagonal and not near:  # the order of a sum over elements is seen
        backwards = fl.GaussianMixture(mixture.weights, mixture.means.flip(1), mixture.variances.flip(1))
        other, first = PerturbedMixture(backwards, [2.0], "reference"), torch.zeros(count, dtype=torch.int64)
        assert not torch.equal(other(x.flip(1), first).flip(1), score(x, first))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("features", [1, 3, 9])
def test_chains_between_narrow_modes_have_the_bits_of_the_loop(kernel, features, diagonal):
    """Their scores are in fp64 at first, until they have come near a mode; those of their neighbours never are."""
    if kernel == "triton" and features > 3:
        pytest.skip("too long for Triton's interpreter")
    means = torch.stack([torch.full((features,), -1.0), torch.full((features,), 1.0)])
    mixture = fl.GaussianMixture([0.5, 0.5], means, 1e-4 * torch.ones(2, features) if diagonal else 1e-4)
    score = PerturbedMixture(mixture, [0.01], "reference")
    x = mixture.sample(130, sigma=0.01, seed=3)
    x[[5, 128]] = 1e-4 * fl.randn((2, features), seed=4)
    x[7, 0] = float("nan")
    runs = [Run(Coefficients(1.0, 1.5e-4, 1e-3), 0, 3), Run(Coefficients(1.0, 1e-5, None), 0, 1)]
    address, found, kept = Address(9, 0, None, 0, Purpose.LANGEVIN), [], []
    for states in (x, x[:5], x[5:6]):
        got, frames = states.clone(), torch.empty(2, *states.shape)
        where = address if len(states) > 1 else address._replace(sample_offset=5)
        score.chain_kernel(got, kernel)(got, Segment(where, runs, 2, frames))
        found.append(got)
        kept.append(frames)
    want = x.clone()
    frames = torch.stack(by_updates(score, want, Segment(address, runs, 2, None)))
    assert torch.equal(frames.nan_to_num(), kept[0].nan_to_num())
    assert torch.equal(found[0].nan_to_num(), want.nan_to_num())
    assert torch.equal(found[0][:5], found[1])
    assert torch.equal(found[0][5:6], found[2])
    assert torch.equal(kept[0][:, 5:6], kept[2])
    # The twin: in fp32 the chains between the modes go elsewhere, and no other.
    score.table(x.device)[..., -1] = -math.inf
    other = x.clone()
    by_updates(score, other, Segment(address, runs, 2, None))
    differ = (other.nan_to_num() != want.nan_to_num()).any(1)
    assert differ.nonzero()[:, 0].tolist() == [5, 128]


def test_the_chain_kernel_is_what_runs(kernel, monkeypatch):
    calls = []
    chain_kernel = PerturbedMixture.chain_kernel

    def counting(self, x, impl):
        run = chain_kernel(self, x, impl)
        return None if run is None else lambda x, segment: (calls.append(segment.length), run(x, segment))

    monkeypatch.setattr(PerturbedMixture, "chain_kernel", counting)
    mixture = make(1, 2)
    annealed(mixture, (5, 2), impl=kernel)
    fl.consistent_annealed(mixture, SIGMAS, epsilon=0.15, shape=(5, 2), seed=0, impl=kernel)
    fl.langevin(mixture, torch.zeros(5, 2), steps=7, epsilon=0.1, seed=0, impl=kernel)
    assert calls == [20, 4, 7]
    annealed(mixture, (5, 2), impl="reference")
    annealed(mixture, (5, 2), impl=kernel, dtype=torch.float64)
    annealed(mixture, (5, 2), impl=kernel, callback=lambda info: False)
    assert calls == [20, 4, 7]


def test_other_samplers_have_the_bits_of_the_loop(kernel):
    mixture, init = make(2, 2, diagonal=True), 2 * fl.randn((19, 2), seed=2)
    score, made = by_the_loop(mixture), {"seed": 3, "impl": kernel, "full_output": True}
    same(
        fl.consistent_annealed(mixture, SIGMAS, epsilon=0.15, init=init, denoise=True, **made),
        fl.consistent_annealed(score, SIGMAS, epsilon=0.15, init=init, denoise=True, **made),
    )
    same(
        fl.langevin(mixture, init, steps=5, epsilon=0.1, trajectory=2, **made),
        fl.langevin(lambda x: mixture.score(x), init, steps=5, epsilon=0.1, trajectory=2, **made),
    )
    signal = {"snr": 0.1, "predictor": "reverse_diffusion", "shape": (7, 2), **made}
    same(fl.predictor_corrector(mixture, SIGMAS, **signal), fl.predictor_corrector(score, SIGMAS, **signal))
    shaped = annealed(mixture, (6, 1, 2, 1), impl=kernel)
    assert torch.equal(shaped.samples.view(6, 2), annealed(score, (6, 2), impl=kernel).samples)


def test_stops_resumes_and_subsets_have_the_bits_of_the_whole_run(kernel):
    mixture, batch = make(8 if kernel == "cpp" else 2, 2), 23
    steps = 25 if kernel == "cpp" else 2
    total = steps * len(SIGMAS)
    whole = annealed(by_the_loop(mixture), (batch, 2), steps, trajectory=3, impl=kernel)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20 if kernel == "cpp" else 1):
        at = int(torch.randint(1, total, (), generator=generator))
        stopped = annealed(
            mixture, (batch, 2), steps, trajectory=3, impl=kernel, callback=lambda info, at=at: info.step == at
        )
        assert stopped.state.step == at
        again = annealed(mixture, None, steps, trajectory=3, impl=kernel, resume=stopped.state, seed=None)
        assert torch.equal(again.samples, whole.samples)
        assert torch.equal(again.trajectory, whole.trajectory)
        ids = torch.randperm(batch, generator=generator)[: int(torch.randint(1, batch, (), generator=generator))]
        part = annealed(mixture, (len(ids), 2), steps, trajectory=3, impl=kernel, sample_ids=ids)
        assert torch.equal(part.samples, whole.samples[ids])
        assert torch.equal(part.trajectory, whole.trajectory[:, ids])


def test_threads_and_instruction_sets_change_no_bit():
    from fastlangevin.kernels.cpp import native

    mixture, threads = make(8, 2), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for name in native.instruction_sets():
                native.use_instruction_set(name)
                results.append(annealed(mixture, (2000, 2), 10, impl="cpp", seed=9).samples)
    finally:
        native.use_instruction_set(None)
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, under Triton's interpreter
def test_a_state_that_is_not_finite_stays_alone(kernel):
    mixture = make(2, 2)
    init = fl.randn((20, 2), seed=0)
    alone = annealed(mixture, None, 1, init=init, impl=kernel).samples
    init[3, 0], init[9, 1] = float("nan"), float("inf")
    spoiled = annealed(mixture, None, 1, init=init, impl=kernel, non_finite="report")
    others = torch.ones(20, dtype=torch.bool)
    others[[3, 9]] = False
    assert torch.equal(spoiled.samples[others], alone[others])
    assert not spoiled.samples[~others].isfinite().all(1).any()
    assert [(fault.row, fault.step) for fault in spoiled.faults] == [(3, 0), (9, 0)]


@pytest.mark.parametrize("non_finite", ["freeze", "report"])
def test_the_first_update_that_is_not_finite_is_the_loops(non_finite):
    """With a step size that diverges; segments that end so are made again, one update at a time."""
    mixture = make(2, 2)
    init = torch.tensor([[1.0, 1.0], [1e37, 0.0], [2.0, 2.0]]).repeat(2, 1)
    options = {"steps": 120, "epsilon": 50.0, "seed": 0, "full_output": True, "trajectory": 10}
    found, loop = (
        fl.langevin(score, init, **options, non_finite=non_finite)
        for score in (mixture, lambda x: mixture.score(x, 0.0))
    )
    assert len({fault.step for fault in loop.faults}) > 2
    assert found.faults == loop.faults
    for one, other in ((found.samples, loop.samples), (found.trajectory, loop.trajectory)):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
        assert torch.equal(one.isnan(), other.isnan())
    with pytest.raises(fl.NonFiniteError, match=f"update {min(fault.step for fault in loop.faults)} "):
        fl.langevin(mixture, init, steps=120, epsilon=50.0, seed=0)


@pytest.mark.gpu
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("components", "features"), [(1, 1), (8, 2), (3, 3), (25, 4), (3, 5), (8, 8), (25, 16), (5, 33), (256, 48), (8, 64)]
)
def test_a_gpu_has_the_bits_of_the_cpu(components, features, diagonal):
    mixture = make(components, features, diagonal)
    for options in (
        {"trajectory": 7},
        {"seed": torch.arange(1000) * 2**33 - 7, "sample_ids": torch.arange(1000) * 2**30 + 3},
    ):
        theirs = annealed(mixture, (1000, features), 20, device="cuda", **options)
        ours = annealed(mixture, (1000, features), 20, impl="cpp", **options)
        assert torch.equal(theirs.samples.cpu(), ours.samples)
        assert ours.trajectory is None or torch.equal(theirs.trajectory.cpu(), ours.trajectory)
