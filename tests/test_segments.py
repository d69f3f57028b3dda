"""Many updates in one call: which chains are run so, and that frames, stops and resumes have the bits of the loop."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastlangevin as fl
from fastlangevin.samplers import segments

SIGMAS = fl.geometric_sigmas(2.0, 0.5, 4)
MADE = {"shape": (6, 3), "seed": 11, "full_output": True}


def gaussian(x, labels):
    return x / -(1 + SIGMAS.float()[labels, None] ** 2)


class Chained:
    """The score of a Gaussian that makes its segments by the loop's own operation, and counts them."""

    def __init__(self, wrong=False):
        self.calls = []
        self.wrong = wrong

    def __call__(self, x, labels):
        return gaussian(x, labels)

    def chain_kernel(self, x, impl):
        return None if impl == "reference" else self.make

    def make(self, x, segment):
        address, frame = segment.address, 0
        self.calls.append(segment.length)
        for rule, level, count in segment.runs:
            for _ in range(count):
                score = gaussian(x, torch.full((len(x),), level))
                at = address._replace(draw=address.draw + self.wrong)._asdict()
                fl.step_(x, score, c=rule.c, a=rule.a, b=rule.b, **at)
                address = address._replace(draw=address.draw + 1)
                if segment.every and address.draw % segment.every == 0:
                    segment.frames[frame] = x
                    frame += 1
        assert segment.frames is None or frame == len(segment.frames)


def annealed(score, **options):
    return fl.annealed_langevin(score, SIGMAS, epsilon=0.1, steps_per_level=30, denoise=True, **MADE | options)


def same(one, other):
    assert torch.equal(one.samples, other.samples)
    assert (one.trajectory is None) == (other.trajectory is None)
    assert one.trajectory is None or torch.equal(one.trajectory, other.trajectory)
    assert torch.equal(one.state.x, other.state.x)
    assert (one.state.step, one.evaluations, one.record) == (other.state.step, other.evaluations, other.record)


@pytest.mark.parametrize("options", [{}, {"trajectory": 7}, {"trajectory": 1, "progress": True}, {"sample_offset": 9}])
def test_segments_have_the_frames_and_counts_of_the_loop(options):
    score = Chained()
    same(annealed(score, **options), annealed(gaussian, **options))
    assert sum(score.calls) == 120
    assert len(score.calls) == 2
    with pytest.raises(AssertionError):
        same(annealed(Chained(wrong=True), **options), annealed(gaussian, **options))


@pytest.mark.parametrize("at", [1, 29, 30, 65, 119])
def test_a_chain_stopped_anywhere_goes_on_in_segments(at):
    whole = annealed(gaussian, trajectory=4)
    stopped = annealed(Chained(), trajectory=4, callback=lambda info: info.step == at)
    score = Chained()
    resumed = annealed(score, trajectory=4, resume=stopped.state, shape=None, seed=None)
    assert torch.equal(resumed.samples, whole.samples)
    assert torch.equal(resumed.trajectory, whole.trajectory)
    # A single update that is watched is the loop's.
    assert sum(score.calls) == (120 - at if at < 119 else 0)


@pytest.mark.parametrize(
    "options",
    [
        {"callback": lambda info: False},
        {"drift": lambda x, labels: 0.1 * x},
        {"clamp": (-1.0, 1.0)},
        {"order": "noise"},
        {"inpainting": fl.Inpainting(torch.tensor([True, False, False]), torch.zeros(6, 3))},
        {"dtype": torch.float64},
        {"impl": "reference"},
        {"init": torch.zeros(3, 6).T, "shape": None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_acts_between_updates_is_left_to_the_loop(options):
    score = Chained()
    same(annealed(score, **options), annealed(gaussian, **options))
    assert score.calls == []


def test_updates_whose_step_follows_from_the_score_are_made_by_the_loop():
    score = Chained()
    made = MADE | {"snr": 0.1, "predictor": "reverse_diffusion", "corrector_steps": 2}
    same(fl.predictor_corrector(score, SIGMAS, **made), fl.predictor_corrector(gaussian, SIGMAS, **made))
    assert score.calls == []
    made["non_finite"] = None
    same(fl.predictor_corrector(score, SIGMAS, **made), fl.predictor_corrector(gaussian, SIGMAS, **made))
    assert score.calls == [1] * 4  # the predictor's


class Reads(TorchDispatchMode):
    """How often the host reads a tensor, and with a device would wait for it; and what is copied."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found[function] += 1
        return function(*args, **(kwargs or {}))

    def of(self, *names):
        return {name: self.found[getattr(torch.ops.aten, name).default] for name in names}


class Own(Chained):
    """The same that says its bits are its own, so that single updates are the kernel's too."""

    def chain_kernel(self, x, impl):
        def kernel(x, segment):
            self.make(x, segment)

        kernel.own_bits = True
        return kernel


@pytest.mark.parametrize("mode", ["raise", "freeze", "report"])
def test_single_updates_do_not_make_the_host_wait(mode):
    made = MADE | {"snr": 0.1, "corrector_steps": 1, "non_finite": mode}
    reads = {}
    for kind, score in (("loop", gaussian), ("same bits", Chained()), ("own bits", Own())):
        with Reads() as reads[kind]:
            fl.predictor_corrector(score, SIGMAS, **made)
    assert reads["same bits"].found == reads["loop"].found
    want = reads["loop"].of("_local_scalar_dense", "nonzero", "is_nonzero")
    assert reads["own bits"].of(*want) == want


@pytest.mark.parametrize("mode", ["freeze", "report"])
def test_a_single_update_of_a_kernel_is_watched_as_the_loop_s(mode):
    def bad(score):
        def run(x, labels):
            out = score(x, labels)
            out[1, 0] = torch.where(labels[1] > 1, torch.inf, out[1, 0])
            return out

        return run

    class Bad(Own):
        def make(self, x, segment):
            ((rule, level, _),) = segment.runs
            score = bad(gaussian)(x, torch.full((len(x),), level))
            fl.step_(x, score, c=rule.c, a=rule.a, b=rule.b, **segment.address._asdict())

        def __call__(self, x, labels):
            return bad(gaussian)(x, labels)

    made = MADE | {"snr": 0.1, "norm": "sqrt_d", "non_finite": mode}
    got, want = (fl.predictor_corrector(score, SIGMAS, **made) for score in (Bad(), bad(gaussian)))
    assert got.faults == want.faults != ()
    torch.testing.assert_close(got.samples, want.samples, rtol=0, atol=0, equal_nan=True)


def test_consistent_sampling_runs_in_one_segment():
    score = Chained()
    same(
        fl.consistent_annealed(score, SIGMAS, epsilon=0.2, **MADE),
        fl.consistent_annealed(gaussian, SIGMAS, epsilon=0.2, **MADE),
    )
    assert score.calls == [4]


def test_segments_end_when_they_take_long(monkeypatch):
    monkeypatch.setattr(segments, "SECONDS", -1.0)
    score = Chained()
    same(annealed(score), annealed(gaussian))
    assert score.calls == [64, 32, 16, 8]
