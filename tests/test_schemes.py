"""Samplers as tables: what they list, their exact laws, what runs them, and what is refused."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules, schemes
from fastlangevin.rules import LinearBeta
from fastlangevin.samplers import ChainOptions
from fastlangevin.samplers.calls import score_calls
from fastlangevin.samplers.device_steps import DeviceSteps
from fastlangevin.samplers.options import complete
from fastlangevin.samplers.start import begin
from fastlangevin.samplers.stepping import Stepper
from fastlangevin.schemes import Evaluate, Law, Measure, Move, Scheme, Step
from fastlangevin.storage import container, stopped_chain

LADDER = [2.0, 1.0, 0.5, 0.25]
GEOMETRIC = fl.geometric_sigmas(2.0, 0.25, 4)
BETAS = [0.05, 0.1, 0.2, 0.35, 0.5]
SCHEDULE = LinearBeta(0.1, 4.0, 6, 0.1)
MEAN, VARIANCE = 0.5, 0.09

SCHEMES = {
    "annealed_langevin": schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=3),
    "annealed_langevin_ou": schemes.annealed_langevin(LADDER, step_lr=0.01, steps_per_level=3, corrector="ou"),
    "annealed_langevin_cold": schemes.annealed_langevin(
        LADDER, epsilon=0.02, steps_per_level=9, temperature=0.5, denoise=True
    ),
    "annealed_langevin_lists": schemes.annealed_langevin(
        LADDER, epsilon=[0.01, 0.02, 0.03, 0.04], steps_per_level=[1, 2, 3, 4], first_level=1
    ),
    "langevin": schemes.langevin(steps=9, epsilon=0.02),
    "consistent_annealed": schemes.consistent_annealed(LADDER, epsilon=0.1, denoise=True),
    "reverse_diffusion": schemes.reverse_diffusion(LADDER),
    "ancestral": schemes.ancestral(LADDER, denoise=True),
    "euler_maruyama": schemes.euler_maruyama(GEOMETRIC),
    "probability_flow": schemes.probability_flow(LADDER),
    "euler_ancestral": schemes.euler_ancestral([*LADDER, 0.0], eta=0.5),
    "ddpm": schemes.ddpm(BETAS),
    "ddpm_large": schemes.ddpm(BETAS, variance="fixed_large"),
    "vp_ancestral": schemes.vp_ancestral(BETAS),
    "vp_reverse_diffusion": schemes.vp_reverse_diffusion(BETAS),
    "vp_probability_flow": schemes.vp_probability_flow(BETAS),
    "vp_euler_maruyama": schemes.vp_euler_maruyama(SCHEDULE),
    "subvp_euler_maruyama": schemes.subvp_euler_maruyama(SCHEDULE),
    "subvp_probability_flow": schemes.subvp_probability_flow(SCHEDULE),
}


def exact_score(scheme, mean=MEAN, variance=VARIANCE):
    """The score of N(mean, variance), perturbed as each level of a scheme has it."""
    steps = [step for step, _ in scheme.runs()] + ([] if scheme.denoise is None else [scheme.denoise])
    rows = [row for step in steps for row in step.rows if row.evaluate]
    levels = {row.evaluate.level: row.evaluate for row in rows}
    if scheme.takes == "nothing":
        return lambda x: (mean - x) / variance
    size = 1 + max(levels)
    alphas, spreads = torch.ones(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
    for level, at in levels.items():
        alphas[level], spreads[level] = at.alpha, at.alpha**2 * variance + at.sigma**2

    def score(x, labels):
        shape = (-1, *[1] * (x.ndim - 1))
        return ((alphas[labels].view(shape) * mean - x.double()) / spreads[labels].view(shape)).to(x.dtype)

    return score


def closed_form(listed, levels, begun):
    """The law after each rule, of (alpha, sigma) each: the closed form of an affine update."""
    mean, variance = begun
    law = [(mean, variance)]
    for (c, a, b), (alpha, sigma) in zip(listed, levels, strict=True):
        v = alpha**2 * VARIANCE + sigma**2
        mean = (c - a / v) * mean + a / v * alpha * MEAN
        variance = (c - a / v) ** 2 * variance + (b or 0.0) ** 2
        law.append((mean, variance))
    return law


def exploding(listed, repeats=1):
    return [rule for rule in listed for _ in range(repeats)], [(1.0, s) for s in LADDER for _ in range(repeats)]


BARS = rules.alpha_bars(BETAS)[::-1]
PRESERVING = [(math.sqrt(bar), math.sqrt(1 - bar)) for bar in BARS]
FORMS = {
    "annealed_langevin": exploding(rules.annealed(LADDER, 0.02), 3),
    "annealed_langevin_ou": exploding(rules.annealed(LADDER, 0.02, "ou"), 3),
    "langevin": ([rules.langevin(0.02)] * 9, [(1.0, 0.0)] * 9),
    "reverse_diffusion": exploding(rules.ve_reverse_diffusion(LADDER)),
    "probability_flow": exploding(rules.ve_probability_flow(LADDER)),
    "euler_ancestral": exploding(rules.euler_ancestral(LADDER, 0.5)),
    "ddpm": (rules.ddpm_ancestral(BETAS), PRESERVING),
    "vp_reverse_diffusion": (rules.vp_reverse_diffusion(BETAS), PRESERVING),
}


@pytest.mark.parametrize("name", FORMS)
def test_laws_are_the_closed_forms(name):
    found = SCHEMES[name].law(MEAN, VARIANCE, init=(0.2, 1.3), full=True)
    means, variances = zip(*closed_form(*FORMS[name], (0.2, 1.3)), strict=True)
    np.testing.assert_allclose(found.mean, means, rtol=1e-12)
    np.testing.assert_allclose(found.variance, variances, rtol=1e-12)
    last = SCHEMES[name].law(MEAN, VARIANCE, init=(0.2, 1.3))
    assert last == Law(found.mean[-1], found.variance[-1])


def errors_by(scheme, elements=10**6):
    """The distance of a law from a million samples as a function of the law, in standard errors."""
    begun = 0.3 + 1.1 * fl.randn((elements // 100, 100), seed=7)
    made = fl.sample(exact_score(scheme), scheme, init=begun, seed=1).double()

    def errors(law):
        off = made - law.mean
        by_mean = float(off.mean()) / math.sqrt(law.variance / elements)
        by_variance = (float(off.square().mean()) / law.variance - 1) / math.sqrt(2 / elements)
        return max(abs(by_mean), abs(by_variance))

    return errors


def check_law(scheme):
    law = scheme.law(MEAN, VARIANCE, init=(0.3, 1.1**2))
    errors = errors_by(scheme)
    assert errors(law) < 4
    # The twins: laws that are 1 % too wide, or 1 % of a width off.
    assert errors(law._replace(variance=1.01 * law.variance)) > 4
    assert errors(law._replace(mean=law.mean + 0.01 * math.sqrt(law.variance))) > 4


@pytest.mark.parametrize("name", SCHEMES)
def test_a_million_samples_follow_the_law(name):
    check_law(SCHEMES[name])


def heun(sigmas):
    """The probability flow dx = -sigma score dsigma by Heun's method: two evaluations a step."""
    pairs = list(pairwise(sigmas))

    def make(number):
        high, low = pairs[number]
        first = Evaluate(level=number, sigma=high)
        second = Evaluate("ahead", "second", level=number + 1, sigma=low)
        width = high * (high - low)
        rows = (
            Move("ahead", {"x": 1.0, "score": width}, evaluate=first),
            Move("x", {"x": 1.0, "score": width / 2, "second": low * (high - low) / 2}, evaluate=second),
        )
        return Step(rows, number)

    return Scheme("heun", make, len(pairs), list(sigmas), {"sampler": "heun", "sigmas": list(sigmas)}, spread=sigmas[0])


def two_step(sigmas):
    """Euler steps that are extrapolated by the score before, which is carried from step to step."""
    pairs = list(pairwise(sigmas))

    def make(number):
        high, low = pairs[number]
        width = high * (high - low)
        evaluate = Evaluate(level=number, sigma=high)
        terms = {"x": 1.0, "score": width} if not number else {"x": 1.0, "score": 1.5 * width, "before": -width / 2}
        rows = (Move("x", terms, 0.1 * low, evaluate=evaluate), Move("before", {"score": 1.0}))
        return Step(rows, number)

    record = {"sampler": "two_step", "sigmas": list(sigmas)}
    return Scheme("two_step", make, len(pairs), list(sigmas), record, spread=sigmas[0], carries=("x", "before"))


@pytest.mark.parametrize("make", [heun, two_step])
def test_schemes_of_several_slots_are_made_and_have_a_law(make):
    scheme = make(fl.geometric_sigmas(4.0, 0.1, 12).tolist())
    check_law(scheme)
    assert scheme.evaluations == (22 if make is heun else 11)
    law, full = (scheme.law(MEAN, VARIANCE, full=full) for full in (False, True))
    assert full.variance.shape == (12,)
    assert full.variance[-1] == law.variance


def carried_score(sigmas):
    """As two_step, but the score itself is carried, and the new one goes to another slot."""

    def make(number):
        high, low = sigmas[number : number + 2]
        width = high * (high - low)
        into = ("even", "odd")[number % 2]
        other = ("even", "odd")[1 - number % 2]
        terms = {"x": 1.0, into: 1.5 * width, other: -width / 2} if number else {"x": 1.0, into: width}
        return Step((Move("x", terms, evaluate=Evaluate("x", into, number, high)),), number)

    record = {"sampler": "carried_score", "sigmas": sigmas}
    return Scheme("carried_score", make, len(sigmas) - 1, sigmas, record, carries=("x", "even", "odd"))


def test_chains_that_carry_slots_are_made_step_by_step():
    mixture = fl.GaussianMixture([1.0], [[0.5]], [0.09])
    scheme = carried_score(fl.geometric_sigmas(4.0, 0.1, 9).tolist())
    options = {"init": fl.randn((6, 1), seed=2), "seed": 3}
    assert torch.equal(fl.sample(mixture, scheme, **options), fl.sample(mixture, scheme, chain="loop", **options))
    with pytest.raises(ValueError, match="the steps of carried_score are more than an update of the state"):
        fl.sample(mixture, scheme, chain="kernel", **options)
    with pytest.raises(ValueError, match="carried_score keeps slots beside the state"):
        fl.sample(mixture, scheme, cuda_graph=True, **options)


@pytest.mark.parametrize("make", [heun, two_step, carried_score])
def test_a_network_may_return_the_same_memory_at_every_call(make):
    scheme = make(fl.geometric_sigmas(4.0, 0.1, 9).tolist())
    score = exact_score(scheme)
    buffer = torch.empty(6, 3)
    options = {"init": fl.randn((6, 3), seed=2), "seed": 3}
    made = fl.sample(lambda x, labels: buffer.copy_(score(x, labels)), scheme, **options)
    assert torch.equal(made, fl.sample(score, scheme, **options))


def test_a_chain_that_carries_more_than_its_state_resumes_anywhere(tmp_path):
    scheme = two_step(fl.geometric_sigmas(4.0, 0.1, 9).tolist())
    score = exact_score(scheme)
    whole = fl.sample(score, scheme, shape=(6, 3), seed=3, full_output=True)
    assert whole.evaluations == 8
    for stop in range(1, 8):
        half = fl.sample(
            score, scheme, shape=(6, 3), seed=3, full_output=True, callback=lambda info, stop=stop: info.step == stop
        )
        assert [*half.state.carried] == ["before"]
        assert torch.equal(fl.sample(score, scheme, resume=half.state), whole.samples)
        stopped_chain.save(tmp_path / "chain", half.state)
        assert torch.equal(fl.sample(score, scheme, resume=stopped_chain.load(tmp_path / "chain")), whole.samples)
    forgotten = fl.sample(score, scheme, shape=(6, 3), seed=3, full_output=True, callback=lambda info: info.step == 4)
    forgotten.state.carried["before"].zero_()
    assert not torch.equal(fl.sample(score, scheme, resume=forgotten.state), whole.samples)
    with pytest.raises(ValueError, match="must hold the slots that two_step carries, before"):
        fl.sample(score, scheme, resume=dataclasses.replace(half.state, carried={}))
    with pytest.raises(ValueError, match="holds the slot 'after', which two_step does not carry"):
        fl.sample(score, scheme, resume=dataclasses.replace(half.state, carried={"after": half.state.x}))
    with pytest.raises(ValueError, match="inside of step 7, at its row 1"):
        fl.sample(score, scheme, resume=dataclasses.replace(half.state, row=1))


def test_files_of_chains_that_carry_slots_are_whole_or_refused(tmp_path):
    path = tmp_path / "chain"
    x = torch.ones(2, 3)
    state = fl.ChainState(x, 4, 7, carried={"before": 2 * x, "older": 3 * x})
    stopped_chain.save(path, state)
    read = stopped_chain.load(path)
    assert [*read.carried] == ["before", "older"]
    assert torch.equal(read.carried["older"], 3 * x)
    tensors, description = container.read(path)

    def rewritten(tensors=tensors, **changes):
        container.write(path, tensors, {"chain": {**description["chain"], **changes}})
        return stopped_chain.load(path)

    assert [*rewritten().carried] == ["before", "older"]
    without = {name: tensor for name, tensor in tensors.items() if name != "slot.older"}
    with pytest.raises(ValueError, match=r"it names the slots \['before', 'older'\], but holds \['before'\]"):
        rewritten(without)
    for names in (["before"], ["before", "before", "older"], "before", [["before"], "older"], ["before", 3]):
        with pytest.raises(ValueError, match="is not the state of a chain, or is damaged"):
            rewritten(slots=names)
    for slot in (torch.ones(2, 4), torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="the slot 'older' is torch"):
            rewritten({**tensors, "slot.older": slot})
    stopped_chain.save(path, state)
    slot = (3 * x).numpy().tobytes()
    assert path.read_bytes().count(slot) == 1
    path.write_bytes(path.read_bytes().replace(slot, x.numpy().tobytes()))
    with pytest.raises(ValueError, match="damaged"):
        stopped_chain.load(path)
    with pytest.raises(ValueError, match="state is inside of step 4, before its row 1"):
        stopped_chain.save(path, dataclasses.replace(state, row=1))
    plain = dataclasses.replace(state, carried={})
    stopped_chain.save(path, plain)
    tensors, description = container.read(path)
    assert [*tensors] == ["x"]
    assert "slots" not in description["chain"]


def test_the_samplers_are_a_scheme_and_a_call():
    mixture = fl.GaussianMixture([0.5, 0.5], [[0.5], [-1.0]], [0.1, 0.2])
    options = {"shape": (7, 1), "seed": 4}
    pairs = [
        (
            fl.annealed_langevin(mixture, LADDER, epsilon=0.02, steps_per_level=5, denoise=True, **options),
            schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=5, denoise=True),
        ),
        (fl.consistent_annealed(mixture, LADDER, epsilon=0.1, **options), SCHEMES["consistent_annealed"]),
        (fl.predictor_corrector(mixture, LADDER, snr=0.1, **options), schemes.predictor_corrector(LADDER, snr=0.1)),
    ]
    pairs[1] = (pairs[1][0], schemes.consistent_annealed(LADDER, epsilon=0.1))
    for made, scheme in pairs:
        assert torch.equal(made, fl.sample(mixture, scheme, **options))
    init = fl.randn((7, 1), seed=9)
    assert torch.equal(
        fl.langevin(mixture, init, steps=5, epsilon=0.01, seed=2),
        fl.sample(mixture, schemes.langevin(steps=5, epsilon=0.01), init=init, seed=2),
    )


def test_lists_of_each_level_are_followed():
    """A list of equal entries is the number; of others, each level has its own."""
    score = exact_score(SCHEMES["annealed_langevin"])
    same = {"epsilon": [0.02] * 4, "steps_per_level": [3] * 4, "temperature": [1.0] * 4}
    one = fl.annealed_langevin(score, LADDER, epsilon=0.02, steps_per_level=3, shape=(4, 2), seed=1)
    assert torch.equal(fl.annealed_langevin(score, LADDER, **same, shape=(4, 2), seed=1), one)
    scheme = schemes.annealed_langevin(
        LADDER, step_lr=[0.005, 0.01, 0.015, 0.02], steps_per_level=[1, 2, 3, 4], temperature=[1.0, 2.0, 0.5, 0.0]
    )
    assert scheme.total == 10
    assert [scheme.step(number).level for number in range(10)] == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    for level, (size, heat) in enumerate([(0.01, 1.0), (0.02, 2.0), (0.03, 0.5), (0.04, 0.0)]):
        expected = rules.annealed(LADDER, size, "langevin", heat)[level]
        assert scheme.step([0, 1, 3, 6][level]).rule == expected
    half = fl.annealed_langevin(score, LADDER, **same, shape=(4, 2), full_output=True, callback=lambda info: True)
    with pytest.raises(ValueError, match=r"another chain: epsilon was 0\.02 and is now"):
        fl.sample(score, scheme, resume=half.state)


def test_a_chain_may_begin_lower_down():
    scheme = schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=2, first_level=2)
    assert [scheme.step(number).level for number in range(scheme.total)] == [2, 2, 3, 3]
    assert scheme.spread == 0.5
    seen = []

    def score(x, labels):
        seen.append(int(labels[0]))
        return -x

    fl.sample(score, scheme, shape=(2, 2), init="normal", seed=1)
    assert seen == [2, 2, 3, 3]


def test_golden_widths_of_the_published_settings():
    ladder = fl.geometric_sigmas(1.0, 0.01, 10)
    widths = [
        math.sqrt(schemes.annealed_langevin(ladder, **size).law(0.0, 0.0).variance) / 0.01
        for size in ({"epsilon": 2e-5}, {"step_lr": 2e-5})
    ]
    assert [f"{width:.4f}" for width in widths] == ["1.0260", "1.0541"]


def test_laws_take_arrays_and_starts():
    scheme = SCHEMES["annealed_langevin"]
    means, variances = np.array([0.5, 0.0]), np.array([0.09, 0.2])
    both = scheme.law(means, variances, full=True)
    assert both.mean.shape == both.variance.shape == (13, 2)
    for place in range(2):
        one = scheme.law(means[place], variances[place], full=True)
        # The same sums in NumPy's and in Python's fp64: 13 steps of three roundings each, which no step amplifies.
        np.testing.assert_allclose(both.variance[:, place], one.variance, rtol=1e-14)
    assert scheme.law(0.5, 0.09) == scheme.law(0.5, 0.09, init=(0.5, 1 / 12))
    assert scheme.law(0.5, 0.09, init="normal") == scheme.law(0.5, 0.09, init=(0.0, 4.0))


def test_tables_are_printed():
    text = str(schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=3, denoise=True))
    assert text == repr(schemes.annealed_langevin(LADDER, epsilon=0.02, steps_per_level=3, denoise=True))
    assert text.splitlines()[0] == "annealed_langevin: 12 steps, 13 evaluations"
    assert text.splitlines()[3].split() == ["3-5", "1", "1", "x", "<-", "x", "+", "0.16", "score", "+", "0.565685", "z"]
    assert text.splitlines()[-1].split()[0] == "denoise"
    assert "||z||/||score||" in str(schemes.predictor_corrector(LADDER, snr=0.1))
    assert "clamp(x, 0, 1)" in str(SCHEMES["langevin"].clamped(0.0, 1.0))
    assert len(str(schemes.ancestral(fl.geometric_sigmas(50.0, 0.01, 1000))).splitlines()) < 40


def one(*rows, total=1, **options):
    return Scheme("tried", lambda number: Step(rows, 0), total, LADDER, {"sampler": "tried"}, **options)


AT = Evaluate(level=0, sigma=2.0)
UPDATE = Move("x", {"x": 1.0, "score": 0.1}, 0.1, evaluate=AT)
BAD_SCHEMES = {
    "a slot that was never written": (one(Move("x", {"x": 1.0, "old": 0.5})), "step 0, row 0 .*'old', which was not"),
    "a slot of the step before": (
        one(UPDATE, Move("old", {"x": 1.0}), UPDATE._replace(terms={"x": 1.0, "older": 0.1})),
        "step 0, row 2 .*'older', which was not written; there are old, score, x",
    ),
    "a draw of the next step": (one(UPDATE._replace(draw=1)), r"row 0 .*names draw 1, .*draws_per_step=1"),
    "a measured row's draw of the next step": (one(Measure(0.1, evaluate=AT, draw=1)), r"row 0 .*names draw 1, "),
    "seven terms": (
        one(
            *(Move(f"s{place}", {"x": 1.0}) for place in range(7)),
            Move("x", {f"s{place}": 1.0 for place in range(7)}),
        ),
        "row 7 .*1 to 6 terms, got 7",
    ),
    "no level": (one(UPDATE._replace(evaluate=Evaluate(sigma=2.0))), "network of levels without one"),
    "a sigma off the ladder": (
        one(UPDATE._replace(evaluate=Evaluate(level=1, sigma=0.7))),
        r"step 0, row 0 .*at sigma = 0\.7, which is not on its ladder: level 1 is 1\.",
    ),
    "a level off the ladder": (one(UPDATE._replace(evaluate=Evaluate(level=4))), "level 4, but .* levels 0 to 3"),
}


@pytest.mark.parametrize("name", BAD_SCHEMES)
def test_steps_that_cannot_be_made_are_named(name):
    scheme, message = BAD_SCHEMES[name]
    with pytest.raises(ValueError, match=message):
        fl.sample(lambda x, labels: -x, scheme, shape=(2, 2), seed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: schemes.annealed_langevin(LADDER, epsilon=[0.1, 0.2]),
            "epsilon must be one number, or one for each of",
        ),
        (lambda: schemes.annealed_langevin(LADDER, epsilon=0.1, steps_per_level=[1] * 5), "steps_per_level .*got 5"),
        (lambda: schemes.annealed_langevin(LADDER, epsilon=0.1, temperature=[]), "temperature .*4 levels, got 0"),
        (lambda: schemes.annealed_langevin(LADDER, epsilon=0.1, first_level=4), "first_level must be from 0 to 3"),
        (lambda: SCHEMES["langevin"].step(9), "langevin, 0 to 8, got 9"),
        (lambda: SCHEMES["langevin"].law(0.0, 0.0), "variance must be above zero at sigma = 0"),
        (lambda: SCHEMES["langevin"].law(0.0, -1.0), "not negative"),
        (lambda: SCHEMES["langevin"].law(0.0, 1.0, init="sigma"), "init must be"),
        (lambda: SCHEMES["langevin"].clamped(0.0, 1.0).law(0.0, 1.0), "the clamp of 'x' is not linear"),
        (lambda: schemes.predictor_corrector(LADDER, snr=0.1).law(0.0, 1.0), "measured from the score"),
        (lambda: schemes.predictor_corrector(LADDER, snr=0.1).noise_first().step(0), "order='score' alone"),
        (lambda: fl.sample(lambda x, labels: x, SCHEMES["langevin"], shape=(2, 2)), r"called as score\(x\) for"),
        (lambda: fl.sample(lambda x: x, SCHEMES["ancestral"], shape=(2, 2)), r"called as score\(x, labels\) for"),
        (lambda: fl.sample(fl.GaussianMixture([1.0], [[0.0]], [1.0]), SCHEMES["ddpm"], shape=(2, 1)), "needs a ladder"),
        (
            lambda: fl.sample(
                lambda x, labels: x,
                SCHEMES["ddpm"],
                shape=(2, 1),
                inpainting=fl.Inpainting(torch.ones(2, 1).bool(), torch.zeros(2, 1)),
            ),
            "inpainting= needs a ladder",
        ),
    ],
)
def test_what_schemes_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_scheme_is_not_something_else():
    with pytest.raises(TypeError, match="scheme must be a Scheme"):
        fl.sample(lambda x, labels: x, LADDER, shape=(2, 2))


def test_a_measured_row_is_checked():
    with pytest.raises(ValueError, match="norm must be one of"):
        Measure(0.1, "all")
    with pytest.raises(ValueError, match="snr must be finite and above zero"):
        Measure(0.0)


def test_a_captured_step_asks_for_the_level_of_each_evaluation():
    """Replayed steps take levels and numbers from tables; the state is made by the same calls as the loop's."""
    scheme = heun(fl.geometric_sigmas(4.0, 0.1, 9).tolist())
    score = exact_score(scheme)
    options = complete({"shape": (6, 3), "seed": 3}, ChainOptions)
    looped, replayed = (
        Stepper(score_calls(score, scheme, options).at, scheme, begin(scheme, options), options) for _ in range(2)
    )
    steps = DeviceSteps(replayed)
    for number in range(scheme.total):
        looped.run(number)
        kind = steps.kind(number)
        if not number:
            steps.seek(number)
        steps.step(kind, replayed.x, steps.counters)
    assert torch.equal(looped.x, replayed.x)


def test_a_step_has_the_level_of_its_evaluation():
    """Not that of the step, which callbacks see."""
    seen = []

    def score(x, labels):
        seen.append(int(labels[0]))
        return -x

    row = Move("x", {"x": 1.0, "score": 0.1}, 0.1, evaluate=Evaluate(level=2, sigma=0.5))
    fl.sample(score, one(row, total=3), shape=(2, 2), seed=1)
    assert seen == [2, 2, 2]


@pytest.mark.parametrize("make", [schemes.ancestral, schemes.reverse_diffusion, schemes.probability_flow])
def test_a_ladder_may_be_read_once(make):
    assert make(iter(LADDER)).record == make(LADDER).record


@pytest.mark.parametrize("make", [schemes.ddpm, schemes.vp_ancestral])
def test_a_schedule_may_be_read_once_and_is_checked(make):
    assert make(iter(BETAS)).record == make(BETAS).record
    with pytest.raises(TypeError, match="betas must be a schedule"):
        make(5)
