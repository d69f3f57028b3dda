"""What samplers promise besides their law: batches, resumes, callbacks, trajectories, conventions."""

import functools
import weakref
from dataclasses import replace

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.noise import Purpose
from fastlangevin.storage import stopped_chain

LADDER = fl.geometric_sigmas(1.0, 0.1, 3)
OPTIONS = {"epsilon": 2e-3, "steps_per_level": 4, "seed": 11}


def score(x, labels):
    scale = LADDER.to(x.dtype)[labels].reshape(-1, *(1,) * (x.ndim - 1))
    return -torch.sin(3 * x) / (scale**2 + 0.1)


def run(of=score, **options):
    shape = {} if isinstance(options.get("init"), torch.Tensor) else {"shape": (5, 2, 3, 3)}
    return fl.annealed_langevin(of, LADDER, **{**OPTIONS, **shape, **options})


def by_hand(x, epsilon=2e-3, seed=11, steps=4, compute=torch.float32):
    """Algorithm 1 written out with the noise as a tensor; the state keeps its dtype between updates."""
    last = float(LADDER[-1])
    for level, sigma in enumerate(LADDER.tolist()):
        alpha = epsilon * (sigma / last) ** 2
        for step in range(steps):
            z = fl.randn(x.shape, seed=seed, draw=level * steps + step, purpose=Purpose.LANGEVIN)
            a, b = torch.tensor(alpha / 2, dtype=compute), torch.tensor(alpha**0.5, dtype=compute)
            found = (x.to(compute) + a * score(x, torch.full((len(x),), level)).to(compute)) + b * z.to(compute)
            x = found.to(x.dtype)
    return x


def test_it_is_algorithm_1(impl):
    start = fl.rand((5, 2, 3, 3), seed=11, purpose=Purpose.INITIAL_STATE)
    assert torch.equal(run(impl=impl), by_hand(start))
    assert torch.equal(run(init=start, impl=impl), by_hand(start))
    assert not torch.equal(run(epsilon=2.1e-3), by_hand(start))


def test_step_lr_is_half_epsilon():
    assert torch.equal(run(), run(epsilon=None, step_lr=1e-3))
    assert rules.step_size(None, 1e-3) == rules.step_size(2e-3, None)


def test_a_normal_start_has_the_width_of_the_first_level():
    zero = fl.annealed_langevin(
        lambda x, labels: torch.zeros_like(x),
        torch.tensor([3.0]),
        shape=(4, 5),
        init="normal",
        epsilon=1e-30,
        steps_per_level=1,
        seed=2,
    )
    assert torch.equal(zero, 3 * fl.randn((4, 5), seed=2, purpose=Purpose.INITIAL_STATE))


def test_a_sample_does_not_depend_on_its_batch(impl):
    whole = run(impl=impl)
    for rows in ([0], [4, 2], [1, 2, 3]):
        part = run(shape=(len(rows), 2, 3, 3), sample_ids=torch.tensor(rows), impl=impl)
        assert torch.equal(part, whole[rows])
    assert torch.equal(run(shape=(2, 2, 3, 3), sample_offset=3, impl=impl), whole[3:])


@pytest.mark.parametrize("keep", [0, 1, 5])
@pytest.mark.parametrize("denoise", [False, True])
def test_a_chain_resumes_after_any_step(tmp_path, keep, denoise):
    expected = run(denoise=denoise, trajectory=keep, full_output=True)
    for stop in range(1, 12):
        halt = run(
            denoise=denoise, trajectory=keep, full_output=True, callback=lambda info, stop=stop: info.step == stop
        )
        assert halt.state.step == stop
        stopped_chain.save(tmp_path / "chain", halt.state)
        resumed = run(
            denoise=denoise,
            trajectory=keep,
            full_output=True,
            seed=None,
            resume=stopped_chain.load(tmp_path / "chain"),
        )
        assert torch.equal(resumed.samples, expected.samples)
        assert halt.evaluations + resumed.evaluations == expected.evaluations == 12 + denoise
        if keep:
            assert torch.equal(resumed.trajectory, expected.trajectory)


@pytest.mark.parametrize("place", [{"sample_offset": 2**33 + 5}, {"sample_ids": [7, 2**40, 0, 3, 9]}], ids=str)
def test_a_resumed_chain_has_the_samples_it_was_begun_with(place):
    halt = run(full_output=True, callback=lambda info: info.step == 5, **place)
    assert torch.equal(run(seed=None, resume=halt.state), run(**place))
    others = replace(halt.state, sample_offset=0, sample_ids=None)
    assert not torch.equal(run(seed=None, resume=others), run(**place))


def test_resuming_with_other_noise_is_seen():
    halt = run(full_output=True, callback=lambda info: info.step == 5)
    wrong = replace(halt.state, seed=12)
    assert not torch.equal(run(seed=None, resume=wrong), run())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epsilon": 1e-3}, "epsilon"),
        ({"steps_per_level": 5}, "steps_per_level"),
        ({"corrector": "ou"}, "corrector"),
        ({"denoise": True}, "denoise"),
        ({"shape": (4, 2, 3, 3)}, "shape"),
        ({"sample_offset": 1}, "sample_ids"),
        ({"sample_ids": [0, 1, 2, 3, 4]}, "sample_ids"),
        ({"seed": 12}, "seed"),
        ({"generator": torch.Generator()}, "generator"),
    ],
)
def test_a_resume_must_be_of_the_same_chain(change, named):
    halt = run(full_output=True, callback=lambda info: info.step == 5)
    with pytest.raises(ValueError, match=named):
        run(**{"seed": None, "resume": halt.state, **change})


def test_trajectories_are_the_states_of_the_chain():
    seen = [fl.rand((5, 2, 3, 3), seed=11, purpose=Purpose.INITIAL_STATE)]
    result = run(trajectory=5, full_output=True, callback=lambda info: seen.append(info.x.clone()) and False)
    assert torch.equal(result.trajectory, torch.stack(seen[::5]))
    assert len(seen) == 13
    assert torch.equal(result.samples, seen[-1])


def test_callbacks_see_levels_and_counts():
    seen = []
    run(callback=lambda info: seen.append((info.step, info.steps, info.level)) and False)
    assert seen == [(step + 1, 12, step // 4) for step in range(12)]


def test_a_state_from_a_callback_is_a_copy():
    states = []
    end = run(callback=lambda info: states.append(info.state()) and False)
    assert torch.equal(run(seed=None, resume=states[3]), end)


def test_the_callers_tensors_are_left_alone():
    start = torch.rand(5, 2, 3, 3)
    copy = start.clone()
    run(init=start)
    assert torch.equal(start, copy)
    before = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_for_each_sample():
    def each(seeds):
        return run(seed=None, shape=(len(seeds), 2, 3, 3), generator=[torch.Generator().manual_seed(s) for s in seeds])

    together = each([1, 2, 3])
    assert torch.equal(together[:1], each([1]))
    swapped = run(
        seed=None,
        shape=(1, 2, 3, 3),
        generator=[torch.Generator().manual_seed(3)],
        sample_offset=2,
    )
    assert torch.equal(together[2:], swapped)


def test_manual_seed_governs_an_unseeded_run():
    torch.manual_seed(0)
    first, second = run(seed=None), run(seed=None)
    torch.manual_seed(0)
    assert torch.equal(run(seed=None), first)
    assert not torch.equal(first, second)


def test_channels_last_states_get_the_same_noise():
    start = torch.rand(5, 2, 3, 3)
    expected = run(init=start)
    got = run(init=start.to(memory_format=torch.channels_last))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype, impl):
    start = fl.rand((5, 2, 3, 3), seed=11, purpose=Purpose.INITIAL_STATE, dtype=dtype)
    double = dtype == torch.float64
    compute, other = (torch.float64, torch.float32) if double else (torch.float32, dtype)
    samples = run(dtype=dtype, impl=impl)
    assert samples.dtype == dtype
    assert torch.equal(samples, by_hand(start, compute=compute))
    assert not torch.equal(samples, by_hand(start, compute=other))


def test_a_score_in_half_precision_is_taken_as_it_is():
    got = fl.annealed_langevin(lambda x, level: score(x, level).bfloat16(), LADDER, shape=(5, 2, 3, 3), **OPTIONS)
    rounded = fl.annealed_langevin(
        lambda x, level: score(x, level).bfloat16().float(), LADDER, shape=(5, 2, 3, 3), **OPTIONS
    )
    assert torch.equal(got, rounded)


def test_plain_langevin_is_one_level():
    start = torch.rand(5, 7)
    got = fl.langevin(lambda x: -x, start, steps=6, epsilon=0.1, seed=3)
    x = start
    for draw in range(6):
        z = fl.randn(x.shape, seed=3, draw=draw, purpose=Purpose.LANGEVIN)
        x = (x + torch.tensor(0.05) * -x) + torch.tensor(0.1**0.5) * z
    assert torch.equal(got, x)
    halt = fl.langevin(
        lambda x: -x, start, steps=6, epsilon=0.1, seed=3, full_output=True, callback=lambda info: info.step == 2
    )
    assert torch.equal(fl.langevin(lambda x: -x, start, steps=6, epsilon=0.1, resume=halt.state), got)


@pytest.mark.parametrize(
    ("output", "convert"),
    [
        ("score", lambda s, x, sigma: s),
        ("scaled", lambda s, x, sigma: s * sigma),
        ("noise", lambda s, x, sigma: -s * sigma),
        ("denoised", lambda s, x, sigma: x + sigma**2 * s),
    ],
)
@pytest.mark.parametrize("takes", ["labels", "sigma"])
def test_adapters_give_back_the_score(output, convert, takes):
    x = torch.rand(5, 2, 3, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1, 0])
    sigma = LADDER[labels].reshape(-1, 1, 1, 1)

    def net(x, level):
        assert torch.equal(level, labels if takes == "labels" else sigma.flatten())
        return convert(score(x, labels), x, sigma)

    adapted = fl.adapt(net, LADDER, takes=takes, output=output)
    torch.testing.assert_close(adapted(x, labels), score(x, labels))


def test_the_labels_of_one_level_are_held():
    seen, alive = [], []

    def watching(x, labels):
        seen.append(weakref.ref(labels))
        gone = {id(each()) for each in seen} - {id(None)}
        alive.append((len(gone), labels.tolist()))
        return score(x, labels)

    stopped = run(of=watching, callback=lambda info: info.step == 6, full_output=True)
    run(of=watching, resume=stopped.state, seed=None)
    assert [count for count, _ in alive] == [1] * 12
    assert [labels for _, labels in alive] == [[level] * 5 for level in range(3) for _ in range(4)]


def test_adapters_keep_no_tables_of_a_mode():
    adapted = fl.adapt(lambda x, sigma: x * sigma[:, None], LADDER, takes="sigma", output="noise")
    x, labels = fl.randn((2, 3), seed=0), torch.tensor([0, 1])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert isinstance(adapted(mode.from_tensor(x), mode.from_tensor(labels)), FakeTensor)
    torch.testing.assert_close(adapted(x, labels), -x)


@pytest.mark.parametrize("output", ["denoised", "noise", "scaled"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_adapters_keep_small_levels_in_half_precision(output, dtype):
    ladder = [2e-4, 1e-4]
    x, labels = torch.zeros(2, 3, dtype=dtype), torch.tensor([0, 1])
    h = torch.full_like(x, 1e-4)

    def net(x, sigma):
        assert sigma.dtype == x.dtype
        return h

    got = fl.adapt(net, ladder, takes="sigma", output=output)(x, labels)
    sigma = torch.tensor(ladder, dtype=torch.float64)[:, None]
    want = {"denoised": h.double() / sigma**2, "noise": -h.double() / sigma, "scaled": h.double() / sigma}[output]
    # sigma to fp32, its square and the quotient are each rounded once, sigma's rounding counts twice: 4 of 2^-24.
    torch.testing.assert_close(got.double(), want, rtol=4 * 2.0**-24, atol=0)
    # In the state's dtype sigma^2 is off by far more.
    rounded = (h / (sigma.to(dtype) ** 2)).double() if output == "denoised" else h.double() / sigma.to(dtype).double()
    assert ((rounded - want.abs()).abs() > 1e-5 * want.abs()).any()


def test_progress_is_shown_when_asked(capsys):
    run(progress=True)
    assert "12/12" in capsys.readouterr().err
    run()
    assert capsys.readouterr().err == ""


CLAMPED = {
    "annealed_langevin": lambda score, **options: fl.annealed_langevin(
        score, [1.0, 0.5], epsilon=1e-3, steps_per_level=2, **options
    ),
    "consistent_annealed": lambda score, **options: fl.consistent_annealed(score, [1.0, 0.5], epsilon=0.4, **options),
    "predictor_corrector": lambda score, **options: fl.predictor_corrector(score, [1.0, 0.5], snr=0.1, **options),
    "interpolation": lambda score, **options: fl.interpolation(
        score, [1.0, 0.5], points=2, epsilon=1e-3, steps_per_level=2, **options
    ),
}
OUT_OF_RANGE = {
    "by the score": lambda x, labels: torch.full_like(x, 8.0),
    "of a mixture": fl.GaussianMixture([1.0], [[4.0, 4.0]], 1e-4),
}


@pytest.mark.parametrize("score", OUT_OF_RANGE)
@pytest.mark.parametrize("sampler", CLAMPED)
def test_the_denoised_state_is_clamped_too(sampler, score):
    run, to = CLAMPED[sampler], OUT_OF_RANGE[score]
    options = {"shape": (4, 2), "seed": 0, "clamp": (0, 1)}
    clamped = run(to, denoise=True, **options)
    assert 0 <= clamped.min() <= clamped.max() <= 1
    free = run(to, denoise=True, clamp_denoised=False, **options)
    assert free.max() > 1.5
    assert torch.equal(clamped, free.clamp(0, 1))
    # Without that step there is nothing to leave, and the bits are the same.
    assert torch.equal(run(to, clamp_denoised=False, **options), run(to, **options))


def test_a_resume_knows_whether_the_denoised_state_is_clamped():
    run = functools.partial(CLAMPED["annealed_langevin"], OUT_OF_RANGE["by the score"], clamp=(0, 1), denoise=True)
    new = {"shape": (4, 2), "seed": 0, "full_output": True, "callback": lambda info: True}
    for chosen in ({}, {"clamp_denoised": False}):
        stopped = run(**new, **chosen).state
        whole = run(shape=(4, 2), seed=0, **chosen)
        assert torch.equal(run(resume=stopped, **chosen), whole)
        other = {} if chosen else {"clamp_denoised": False}
        with pytest.raises(ValueError, match="clamp_denoised was"):
            run(resume=stopped, **other)
