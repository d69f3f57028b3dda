"""compat.score_sde: whole runs, against the published loop and the exact law, and which of them couple samples."""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import score_sde as sde_lib
from fastlangevin.compat.score_sde import registry
from fastlangevin.compat.score_sde.sampling import Sampler
from fastlangevin.noise import Purpose

N, SEED, SNR = 12, 5, 0.16
SHAPE = (4, 3, 2, 3)
LIMIT = 6.0  # standard errors; some 40 statistics are looked at
# Some 100 updates of numbers below 200, each with a few roundings, which the steps do not enlarge.
ROUNDED = 1000 * 200 * 2.0**-53


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(x):
    return x


def net(x, sigma):
    return -x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2) + 0.01 * torch.sin(x)


def sampler(sde=None, shape=SHAPE, predictor="reverse_diffusion", corrector="langevin", snr=SNR, **options):
    sde = sde_lib.VESDE(0.01, 50, N) if sde is None else sde
    options = {"seed": SEED, "device": "cpu", "continuous": True, "eps": 1e-5, **options}
    return sde_lib.get_pc_sampler(sde, shape, predictor, corrector, same, snr, **options)


SIGMAS = torch.exp(torch.linspace(math.log(0.01), math.log(50), N, dtype=torch.float64))


class Published:
    """The published loop for VESDE with reverse diffusion and the langevin corrector, in fp64 with recorded noise."""

    def __init__(self, n_steps=1, corrector_first=True, mend=lambda x, mean, t: (x, mean), predictor=True):
        self.n_steps, self.corrector_first, self.mend = n_steps, corrector_first, mend
        self.predictor = predictor
        self.draw = 0

    def z(self, shape=SHAPE, purpose=Purpose.LANGEVIN):
        drawn = fl.randn(shape, seed=SEED, draw=self.draw, purpose=purpose, dtype=torch.float64)
        self.draw += 1
        return drawn

    def correct(self, x, t):
        for _ in range(self.n_steps):
            grad, z = self.score(x, t), self.z()
            norms = [each.flatten(1).norm(dim=1).mean() for each in (z, grad)]
            size = (SNR * norms[0] / norms[1]) ** 2 * 2
            mean = x + size * grad
            x = mean + torch.sqrt(size * 2) * z
        return x, mean

    def predict(self, x, t):
        if not self.predictor:
            return x, x
        i = int(t * (N - 1))
        low = SIGMAS[i - 1] if i else 0.0
        g2 = SIGMAS[i] ** 2 - low**2
        mean = x + g2 * self.score(x, t)
        return mean + torch.sqrt(g2) * self.z(), mean

    def score(self, x, t):
        return net(x, 0.01 * 5000 ** t.repeat(len(x)))

    def prior(self):
        return fl.randn(SHAPE, seed=SEED, purpose=Purpose.INITIAL_STATE, dtype=torch.float64) * 50

    def run(self, x=None):
        x = self.prior() if x is None else x
        for t in torch.linspace(1, 1e-5, N, dtype=torch.float64):
            for update in (self.correct, self.predict)[:: 1 if self.corrector_first else -1]:
                x, mean = self.mend(*update(x, t), t)
        return x, mean


@pytest.mark.parametrize("n_steps", [1, 2])
def test_a_run_is_the_published_loop(n_steps):
    x, mean = Published(n_steps).run()
    found, nfe = sampler(n_steps=n_steps, dtype=torch.float64)(net)
    noisy, _ = sampler(n_steps=n_steps, dtype=torch.float64, denoise=False)(net)
    assert nfe == N * (n_steps + 1)
    torch.testing.assert_close(found, mean, rtol=0, atol=ROUNDED)
    torch.testing.assert_close(noisy, x, rtol=0, atol=ROUNDED)
    other, _ = Published(n_steps, corrector_first=False).run()
    assert not torch.allclose(noisy, other, rtol=0, atol=1e6 * ROUNDED)


def test_a_network_of_levels_and_the_published_default_norm():
    found, _ = sampler(continuous=False, dtype=torch.float64, norm="batch")(
        lambda x, labels: net(x, SIGMAS.flip(0)[labels])
    )
    default, _ = sampler(continuous=False, dtype=torch.float64)(lambda x, labels: net(x, SIGMAS.flip(0)[labels]))
    assert torch.equal(found, default)


@pytest.mark.parametrize("kind", ["ve", "vp"])
def test_without_a_predictor_denoise_is_the_step_to_the_posterior_mean_unless_strict(kind):
    eps = 1e-3
    sde = sde_lib.VESDE(0.01, 50, N) if kind == "ve" else sde_lib.VPSDE(0.1, 10, N)

    def model(x, label):
        return net(x, 0 * label + 0.5)

    options = {"sde": sde, "predictor": None, "corrector": "ald", "dtype": torch.float64, "eps": eps, "n_steps": 2}
    found, nfe = sampler(**options)(model)
    noisy, calls = sampler(**options, strict=True)(model)
    assert torch.equal(noisy, sampler(**options, denoise=False)(model)[0])  # as published: a no-op
    assert (nfe, calls) == (2 * N + 1, 2 * N)
    t = torch.full((len(noisy),), eps, dtype=torch.float64)
    if kind == "ve":
        expected = noisy + (0.01 * 5000**eps) ** 2 * model(noisy, t)
    else:
        alpha_bar = math.exp(-0.1 * eps - eps**2 / 2 * 9.9)
        expected = (noisy - math.sqrt(1 - alpha_bar) * model(noisy, t)) / math.sqrt(alpha_bar)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)  # 1 - alpha_bar is 1e-4: four digits lost


MU, S0 = 0.5, 0.3
# A signal-to-noise ratio and last times at which every mutant is seen in the law: near t = 0, VP forgets the corrector.
LARGE, LAST = 0.8, {"ve": 1e-3, "vp": 0.2}


class Law:
    """Mean and variance after every update of a chain with a linear score, by the published formulas."""

    def __init__(self, kind, predictor, factor=2.0, correct=True, index=0):
        self.kind, self.predictor = kind, predictor
        self.factor, self.correct, self.index = factor, correct, index
        self.betas = [0.1 / N + i * (10 - 0.1) / N / (N - 1) for i in range(N)]

    def perturbed(self, t):
        """The data's factor and the noise's standard deviation."""
        if self.kind == "ve":
            return 1.0, 0.01 * 5000**t
        alpha_bar = math.exp(-0.1 * t - t**2 / 2 * 9.9)
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)

    def coefficients(self, t):
        i = max(int(t * (N - 1)) + self.index, 0)
        if self.kind == "ve":
            high, low = float(SIGMAS[i]), float(SIGMAS[i - 1]) if i else 0.0
            ratio = low / high if self.predictor == "ancestral_sampling" else 1.0
            return 1.0, high**2 - low**2, ratio * math.sqrt(high**2 - low**2)
        root = math.sqrt(1 - self.betas[i])
        if self.predictor == "ancestral_sampling":
            return 1 / root, self.betas[i] / root, math.sqrt(self.betas[i])
        return 2 - root, self.betas[i], math.sqrt(self.betas[i])

    def after(self, denoise):
        mean, variance = 0.0, 50.0**2 if self.kind == "ve" else 1.0
        for t in torch.linspace(1, LAST[self.kind], N, dtype=torch.float64).tolist():
            m, n = self.perturbed(t)
            v = m**2 * S0**2 + n**2
            alpha = 1 - self.betas[int(t * (N - 1))] if self.kind == "vp" else 1.0
            size = self.factor * alpha * (LARGE * n) ** 2
            for c, a, b in ([(1.0, size, math.sqrt(2 * size))] if self.correct else []) + [self.coefficients(t)]:
                shrink = c - a / v
                mean, before = shrink * mean + a * m * MU / v, shrink**2 * variance
                variance = before + b**2
        return mean, before if denoise else variance


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ancestral_sampling"])
@pytest.mark.parametrize("kind", ["ve", "vp"])
def test_a_run_has_its_exact_law_on_a_gaussian(kind, predictor, denoise):
    sde = sde_lib.VESDE(0.01, 50, N) if kind == "ve" else sde_lib.VPSDE(0.1, 10, N)

    def model(x, label):
        t = torch.log(label.double() / 0.01) / math.log(5000) if kind == "ve" else label.double() / 999
        m, n = Law(kind, predictor).perturbed(float(t[0]))
        value = (m * MU - x) / (m**2 * S0**2 + n**2)
        return value if kind == "ve" else -n * value

    options = {
        "sde": sde,
        "shape": (2**14, 16),
        "predictor": predictor,
        "corrector": "ald",
        "eps": LAST[kind],
        "snr": LARGE,
    }
    x = sampler(**options, denoise=denoise)(model)[0].double().flatten()

    def errors(law):
        mean, variance = law.after(denoise)
        shift = abs(float(x.mean()) - mean) / math.sqrt(variance / len(x))
        return max(shift, abs(float(((x - mean) ** 2).mean()) / variance - 1) / math.sqrt(2 / len(x)))

    assert errors(Law(kind, predictor)) < LIMIT
    other = "ancestral_sampling" if predictor == "reverse_diffusion" else "reverse_diffusion"
    mutants = [Law(kind, predictor, factor=1.0), Law(kind, predictor, correct=False), Law(kind, predictor, index=-1)]
    mutants.append(Law(kind, other))
    found = [errors(law) for law in mutants]
    assert all(each > LIMIT for each in found), found
    # The table's own law, from the same start. Its times are those of an fp64 state, as those of the formulas.
    made = Sampler(sde, predictor, "ald", same, LARGE, 1, False, True, denoise, LAST[kind], {})
    scheme = made.scheme(made.chain(model, made.times(torch.empty(1, dtype=torch.float64))))
    told = scheme.law(MU, S0**2, init="normal")
    for found, expected in zip(told, Law(kind, predictor).after(denoise), strict=True):
        assert math.isclose(found, expected, rel_tol=1e-12)
    assert not math.isclose(told.variance, mutants[-1].after(denoise)[1], rel_tol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "sample", "sqrt_d"])
@pytest.mark.parametrize("kind", ["ve", "vp", "subvp"])
def test_only_the_norms_of_the_batch_couple_samples(kind, norm):
    sde = {"ve": sde_lib.VESDE, "vp": sde_lib.VPSDE, "subvp": sde_lib.subVPSDE}[kind](N=30)

    def model(x, label):
        return -x if kind == "ve" else x

    options = {"sde": sde, "norm": norm, "n_steps": 2}
    together, _ = sampler(shape=(5, 7), **options)(model)
    assert together.isfinite().all()
    chosen, _ = sampler(shape=(2, 7), sample_ids=[4, 1], **options)(model)
    assert torch.equal(chosen, together[[4, 1]]) is (norm != "batch")
    shifted, _ = sampler(shape=(1, 7), sample_offset=3, **options)(model)
    assert torch.equal(shifted, together[3:4]) is (norm != "batch")


def test_seeds_as_users_expect_them():
    again = [sampler()(net)[0] for _ in range(2)]
    assert torch.equal(*again)
    assert not torch.equal(again[0], sampler(seed=SEED + 1)(net)[0])
    torch.manual_seed(3)
    run = sampler(seed=None)
    one, two = run(net)[0], run(net)[0]
    assert not torch.equal(one, two)
    torch.manual_seed(3)
    assert torch.equal(one, sampler(seed=None)(net)[0])
    generator = torch.Generator().manual_seed(1)
    run = sampler(seed=None, generator=generator)
    assert not torch.equal(run(net)[0], run(net)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_samples_have_the_dtype_that_was_asked_for(dtype):
    labels = []

    def model(x, sigma):
        labels.append(sigma.dtype)
        return -x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2).to(x.dtype)

    x, _ = sampler(dtype=dtype)(model)
    assert x.dtype == dtype
    assert x.isfinite().all()
    assert set(labels) == {torch.float64 if dtype == torch.float64 else torch.float32}


MASK = torch.zeros(1, 1, 2, 3)
MASK[..., 0] = 1


@pytest.mark.parametrize("strict", [False, True])
def test_inpainting_is_the_published_loop_and_strict_its_errata(strict):
    data = fl.randn(SHAPE, seed=9, dtype=torch.float64)
    loop = Published()

    def mend(x, mean, t):
        known = data + loop.z(purpose=Purpose.INPAINTING) * 0.01 * 5000**t
        x = x * (1 - MASK) + known * MASK
        return x, (x if strict else mean) * (1 - MASK) + data * MASK

    start = loop.prior()
    start = start * (1 - MASK) + data * MASK if strict else mend(start, start, torch.tensor(1.0).double())[0]
    loop.mend = mend
    _, expected = loop.run(start)

    def run(**options):
        made = sde_lib.get_pc_inpainter(
            sde_lib.VESDE(0.01, 50, N),
            sde_lib.get_predictor("reverse_diffusion"),
            sde_lib.get_corrector("langevin"),
            same,
            SNR,
            continuous=True,
            seed=SEED,
            **options,
        )
        before = data.clone()
        found = [made(net, data, mask) for mask in (MASK, MASK.bool(), MASK.expand(SHAPE).long())]
        assert torch.equal(data, before)
        assert all(torch.equal(found[0], each) for each in found)
        return found[0]

    found = run(strict=strict)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDED)
    assert torch.equal(found[..., 0], data[..., 0])
    assert not torch.allclose(run(strict=not strict), expected, rtol=0, atol=1e6 * ROUNDED)


@pytest.mark.parametrize("strict", [False, True])
def test_colouring_is_the_published_loop_and_strict_its_errata(strict):
    image = fl.randn((4, 1, 2, 3), seed=9, dtype=torch.float64)
    # Any orthonormal matrix with this first column; the channels are decoupled, and the first coordinate imposed.
    matrix, _ = torch.linalg.qr(torch.tensor([[1.0, 2, 0], [1, 0, 3], [1, 1, 1]], dtype=torch.float64))
    matrix = matrix * matrix[0, 0].sign()
    first = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)

    def decouple(x):
        return torch.einsum("bihw,ij->bjhw", x, matrix)

    def couple(y):
        return torch.einsum("bjhw,ij->bihw", y, matrix)

    grey = decouple(image.expand(SHAPE))
    loop = Published()

    def mend(x, mean, t):
        z = loop.z((4, 1, 2, 3), purpose=Purpose.INPAINTING)
        known = grey + z * 0.01 * 5000**t
        x = couple(decouple(x) * (1 - first) + known * first)
        return x, couple(decouple(x if strict else mean) * (1 - first) + grey * first)

    start = loop.prior()
    if strict:
        start = couple(decouple(start) * (1 - first) + grey * first)
    else:
        start = mend(start, start, torch.tensor(1.0).double())[0]
    loop.mend = mend
    _, expected = loop.run(start)

    def run(given, **options):
        made = sde_lib.get_pc_colorizer(
            sde_lib.VESDE(0.01, 50, N),
            "reverse_diffusion",
            "langevin",
            same,
            SNR,
            continuous=True,
            seed=SEED,
            **options,
        )
        return made(net, given)

    found = run(image, strict=strict)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDED)
    torch.testing.assert_close(found, run(image.expand(SHAPE), strict=strict), rtol=0, atol=ROUNDED)
    torch.testing.assert_close(found.mean(1, keepdim=True), image, rtol=0, atol=ROUNDED)
    assert not torch.allclose(run(image, strict=not strict), expected, rtol=0, atol=1e6 * ROUNDED)


def test_classes_of_others_run_by_their_names(monkeypatch):
    for table in ("_PREDICTORS", "_CORRECTORS"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))

    @sde_lib.register_predictor(name="halved")
    class Halved:
        def __init__(self, sde, score_fn, probability_flow=False):
            self.score_fn = score_fn

        def update_fn(self, x, t):
            return x / 2, x / 2 + 0 * self.score_fn(x, t)

    @sde_lib.register_corrector
    class StillCorrector(sde_lib.Corrector):
        def update_fn(self, x, t):
            return x, x

    x, nfe = sampler(predictor="halved", corrector=sde_lib.get_corrector("StillCorrector"), dtype=torch.float64)(net)
    assert nfe == N
    torch.testing.assert_close(x, Published().prior() / 2**N, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"name 'halved' is taken by Halved; register the predictor under another"):
        sde_lib.register_predictor(Halved, name="halved")
    with pytest.raises(ValueError, match=r"'ald' is taken by AnnealedLangevinDynamics"):
        sde_lib.register_corrector(StillCorrector, name="ald")


def test_a_module_is_sampled_in_evaluation_mode():
    class Net(torch.nn.Module):
        def forward(self, x, sigma):
            modes.append(self.training)
            return net(x, sigma)

    modes = []
    sampler()(Net().train())
    assert set(modes) == {False}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["ve", "vp", "subvp"])
def test_every_predictor_and_corrector_on_a_device(kind):
    def sde():
        return {"ve": sde_lib.VESDE, "vp": sde_lib.VPSDE, "subvp": sde_lib.subVPSDE}[kind](N=30)

    def model(x, label):
        return (-x if kind == "ve" else x) / (2 + label.reshape(-1, 1).to(x) ** 2)

    names = ["euler_maruyama", "reverse_diffusion", "none"] + ["ancestral_sampling"] * (kind != "subvp")
    for predictor in names:
        for corrector in ("langevin", "ald", "none"):
            options = {"sde": sde(), "shape": (3, 8), "predictor": predictor, "corrector": corrector, "norm": "sample"}
            returned = []

            def recorded(x, label, returned=returned):
                returned.append(model(x, label))
                return returned[-1]

            there, _ = sampler(**options, device="cuda")(recorded)
            assert there.is_cuda
            # Given what the network returned there, the bits of the noise and of every update.
            for seed in (SEED, SEED + 1):
                again = iter(returned)
                here, _ = sampler(**options, seed=seed)(lambda x, label, again=again: next(again).cpu())
                assert torch.equal(there.cpu(), here) == (seed == SEED)
                assert next(again, None) is None
            inpaint = sde_lib.get_pc_inpainter(sde(), predictor, corrector, same, SNR, seed=0)
            assert inpaint(model, there, there > 0).is_cuda


# States that are not finite


class Failing:
    """A score that is NaN, or infinite, for one sample from its k-th call on, in one column."""

    def __init__(self, call, row=2, value=math.nan, column=-1):
        self.call, self.row, self.value, self.column, self.calls = call, row, value, column, 0

    def __call__(self, x, sigma):
        out = -x / (1 + sigma.reshape(-1, *(1,) * (x.ndim - 1)) ** 2)
        if self.calls >= self.call:
            out[self.row, ..., self.column] = self.value
        self.calls += 1
        return out


NEVER = 10**9
CHAINS = [
    {"corrector": "langevin"},
    {"corrector": "langevin", "norm": "sample", "n_steps": 2},
    {"corrector": "langevin", "norm": "sqrt_d"},
    {"corrector": "ald", "predictor": "ancestral_sampling"},
    {"corrector": None, "predictor": "euler_maruyama"},
    {"corrector": None, "probability_flow": True},
    {"corrector": "ald", "probability_flow": True},
    {"corrector": "ald", "predictor": None, "strict": True},
]


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("options", CHAINS, ids=str)
def test_a_state_that_is_not_finite_is_told_of(options, denoise):
    options = {"norm": "sample", "denoise": denoise, "sample_ids": [7, 1, 9, 4], **options}
    whole, nfe = sampler(**options)(Failing(NEVER))
    assert whole.isfinite().all()  # and nothing was told of
    each = nfe // N
    for call, value in ((0, math.inf), (each - 1, math.nan), (5 * each, math.nan), (nfe - 1, math.nan)):
        place = call // each
        said = (
            rf"1 of 4 samples are not finite, the first in update {place} \(of {N}, from 0\) at level {place}: sample 9"
        )
        with pytest.raises(fl.NonFiniteError, match=said) as told:
            sampler(**options)(Failing(call, value=value))
        assert told.value.faults == (fl.samplers.Fault(2, 9, place, place),)
        assert (told.value.state.step, told.value.state.seed) == (N, SEED)
        assert "resume=error.state" in str(told.value)
        others = [0, 1, 3]
        assert torch.equal(told.value.state.x[others], whole[others])


def test_the_step_to_the_posterior_mean_is_looked_at():
    options = {"predictor": None, "corrector": "ald"}
    whole, nfe = sampler(**options)(Failing(NEVER))
    assert whole.isfinite().all()
    with pytest.raises(fl.NonFiniteError, match=rf"in the denoise step at level {N - 1}: sample 2\.") as told:
        sampler(**options)(Failing(nfe - 1))
    assert told.value.faults == (fl.samplers.Fault(2, 2, N, N - 1),)


@pytest.mark.parametrize(("first", "nfe"), [(31, 32), (32, 64), (40, 64), (70, 74)])
def test_a_long_chain_is_looked_at_every_32_times(first, nfe):
    run = sampler(sde_lib.VESDE(0.01, 50, 74), corrector=None)
    assert run(Failing(NEVER))[0].isfinite().all()
    failing = Failing(first)
    with pytest.raises(fl.NonFiniteError, match=f"update {first} "):
        run(failing)
    assert failing.calls == nfe


def test_a_finite_run_waits_for_no_record_between_looks(monkeypatch):
    reads = []
    own = torch.Tensor.__int__
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: reads.append(1) or own(self))
    for times, looks in ((31, 1), (32, 1), (33, 2), (96, 3)):
        run = sampler(sde_lib.VESDE(0.01, 50, times))
        reads.clear()
        run(Failing(NEVER))
        assert len(reads) == looks


@pytest.mark.parametrize("strict", [False, True])
def test_what_a_known_region_replaces_need_not_be_finite(strict):
    data = fl.randn(SHAPE, seed=9)

    def run(model, data=data, **watching):
        sde = sde_lib.VESDE(0.01, 50, 40)
        options = {"continuous": True, "seed": SEED, "norm": "sqrt_d", "strict": strict, **watching}
        made = sde_lib.get_pc_inpainter(sde, "reverse_diffusion", "ald", same, SNR, **options)
        return made(model, data, MASK)

    whole = run(Failing(NEVER))
    assert torch.equal(run(Failing(3, column=0)), whole)
    # Nor is such a sample left as it is from then on.
    frozen = run(Failing(3, column=0), non_finite="freeze", full_output=True)
    assert frozen.faults == ()
    assert torch.equal(frozen.samples, whole)
    with pytest.raises(fl.NonFiniteError, match=r"update 4 \(of 40, from 0\) at level 4: sample 2\."):
        run(Failing(8))
    unknown = torch.where(MASK.bool(), data, math.nan)
    assert torch.equal(run(Failing(NEVER), unknown), whole)
    data = data.clone()
    data[1, ..., 0] = math.nan
    with pytest.raises(fl.NonFiniteError, match=r"1 of 4 samples are not finite.*: sample 1\."):
        run(Failing(NEVER), data)


def test_a_coloured_image_that_is_not_finite_is_told_of():
    image = fl.randn((4, 1, 2, 3), seed=9)
    made = sde_lib.get_pc_colorizer(
        sde_lib.VESDE(0.01, 50, N),
        "reverse_diffusion",
        "langevin",
        same,
        SNR,
        continuous=True,
        seed=SEED,
        norm="sample",
    )
    assert made(Failing(NEVER), image).isfinite().all()
    with pytest.raises(fl.NonFiniteError, match=r"update 3 \(of 12, from 0\) at level 3: sample 2\."):
        made(Failing(7), image)


def test_the_states_of_classes_of_others_are_looked_at():
    class Plain:
        def __init__(self, sde, score_fn, probability_flow=False):
            self.score_fn = score_fn

        def update_fn(self, x, t):
            x = x / 2 + 0 * self.score_fn(x, t)
            return x, x

    class Mending(Plain):
        def update_fn(self, x, t):
            x = x.nan_to_num(0) / 2 + 0 * self.score_fn(x, t)
            return (x.nan_to_num(0) if float(t[0]) < 0.1 else x), x.nan_to_num(0)

    options = {"corrector": None}
    assert sampler(predictor=Plain, **options)(Failing(NEVER))[0].isfinite().all()
    with pytest.raises(fl.NonFiniteError, match=rf"update 5 \(of {N}, from 0\) at level 5: sample 2\."):
        sampler(predictor=Plain, **options)(Failing(5))
    # A result that is finite is returned.
    assert sampler(predictor=Mending, **options)(Failing(5))[0].isfinite().all()


def test_a_mean_may_be_finite_where_its_noise_is_too_large():
    # Two steps at the first level, of which the second makes some states too large for fp16.
    sde = sde_lib.VESDE(0.01, 13000.0, 2)
    options = {"corrector": None, "dtype": torch.float16, "shape": (400,), "eps": 1 - 1e-7}

    def model(x, sigma):
        return 0 * x

    x, _ = sampler(sde, **options)(model)
    assert x.isfinite().all()
    with pytest.raises(fl.NonFiniteError, match="in update 1 "):
        sampler(sde, **options, denoise=False)(model)
