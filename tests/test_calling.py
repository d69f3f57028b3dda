"""Scores that write to what they are given or that use autograd: every sampler gives the result of the plain score."""

import weakref

import pytest
import torch
from torch import nn

import fastlangevin as fl
from fastlangevin.calling import NEEDS_GRADIENTS, Guarded
from fastlangevin.compat import k_diffusion, ncsn, ncsnv2, score_sde
from fastlangevin.samplers import replaying

LADDER = [1.0, 0.5, 0.1]
SHAPE = (4, 2, 6)
START = fl.randn(SHAPE, seed=1)
KNOWN = torch.full((2, 6), 0.5)
REGION = {kind: fl.Inpainting(torch.arange(6) < 2, KNOWN, noise=kind) for kind in ("level", "level_start", "step")}
CHAIN = {"epsilon": 1e-3, "seed": 3, "init": START, "steps_per_level": 2}
PUBLISHED = {"step_lr": 1e-3, "n_steps_each": 2, "seed": 3}
SDE = score_sde.VESDE(0.01, 2.0, 4)


def published_pc(score, **options):
    made = score_sde.get_pc_sampler(
        SDE, SHAPE, "reverse_diffusion", "langevin", lambda x: x, 0.1, continuous=True, device="cpu", seed=3, **options
    )
    return made(score)[0]


def inpainted_pc(score):
    made = score_sde.get_pc_inpainter(SDE, "none", "ald", lambda x: x, 0.1, continuous=True, seed=3)
    return made(score, START, (torch.arange(6) < 2).float())


def one_prediction(score):
    times = torch.full((4,), 0.5)
    predicted, mean = score_sde.ReverseDiffusionPredictor(SDE, score, noise=score_sde.AddressedNoise(seed=3)).update_fn(
        START.clone(), times
    )
    return torch.stack([predicted, mean])


# Each makes samples with a score of a state and of anything else, which it does not look at.
SAMPLERS = {
    "annealed": lambda score: fl.annealed_langevin(score, LADDER, **CHAIN, denoise=True),
    "begun at random": lambda score: fl.annealed_langevin(score, LADDER, **{**CHAIN, "init": "normal"}, shape=SHAPE),
    "noise first": lambda score: fl.annealed_langevin(score, LADDER, **CHAIN, order="noise"),
    "clamped": lambda score: fl.annealed_langevin(score, LADDER, **CHAIN, clamp=(-1, 1)),
    "telemetry": lambda score: fl.annealed_langevin(score, LADDER, **CHAIN, telemetry=1, full_output=True).samples,
    "a drift": lambda score: fl.annealed_langevin(lambda x, labels: -x, LADDER, **CHAIN, drift=score),
    "a drift beside it": lambda score: fl.annealed_langevin(score, LADDER, **CHAIN, drift=lambda x, labels: 1 - x),
    "region of a level": lambda score: fl.annealed_langevin(score, LADDER, **CHAIN, inpainting=REGION["level"]),
    "region from the start": lambda score: fl.annealed_langevin(
        score, LADDER, **CHAIN, inpainting=REGION["level_start"]
    ),
    "region of a step": lambda score: fl.annealed_langevin(score, LADDER, **CHAIN, inpainting=REGION["step"]),
    "consistent": lambda score: fl.consistent_annealed(score, LADDER, epsilon=0.018, init=START, seed=3),
    "predictor-corrector": lambda score: fl.predictor_corrector(score, LADDER, snr=0.1, init=START, seed=3),
    "flow": lambda score: fl.predictor_corrector(
        score, LADDER, snr=0.1, init=START, seed=3, predictor="probability_flow", denoise=True
    ),
    "interpolation": lambda score: fl.interpolation(score, LADDER, **CHAIN, points=2),
    "langevin": lambda score: fl.langevin(score, START, steps=4, epsilon=1e-2, seed=3),
    "adapted": lambda score: fl.annealed_langevin(fl.adapt(score, LADDER), LADDER, **CHAIN),
    "adapted noise": lambda score: fl.annealed_langevin(fl.adapt(score, LADDER, output="noise"), LADDER, **CHAIN),
    "adapted denoiser": lambda score: fl.annealed_langevin(
        fl.adapt(score, LADDER, takes="sigma", output="denoised"), LADDER, **CHAIN
    ),
    "a denoiser alone": lambda score: torch.no_grad()(fl.adapt(score, LADDER, output="denoised"))(
        START.clone(), torch.zeros(4, dtype=torch.int64)
    ),
    "ncsn": lambda score: ncsn.anneal_Langevin_dynamics(START, score, LADDER, **PUBLISHED)[-1],
    "ncsn, strict": lambda score: torch.stack(
        ncsn.anneal_Langevin_dynamics(START, score, LADDER, **PUBLISHED, strict=True)
    ),
    "ncsn, one level": lambda score: ncsn.Langevin_dynamics(START, score, 4, 1e-3, seed=3)[-1],
    "ncsn, baseline": lambda score: torch.stack(
        ncsn.baseline_Langevin_dynamics(START, score, 4, 1e-3, seed=3, strict=True)
    ),
    "ncsn, inpainting": lambda score: torch.stack(
        ncsn.anneal_Langevin_dynamics_inpainting(START, KNOWN, score, LADDER, **PUBLISHED, strict=True)
    ),
    "ncsn, toy": lambda score: ncsn.toy_langevin_dynamics(score, START, 1e-2, 4, seed=3),
    "ncsn, annealed toy": lambda score: ncsn.toy_anneal_langevin_dynamics(
        score, START, torch.tensor(LADDER), 1e-3, 2, seed=3
    ),
    "ncsnv2": lambda score: ncsnv2.anneal_Langevin_dynamics(START, score, LADDER, **PUBLISHED)[-1],
    "ncsnv2, verbose": lambda score: ncsnv2.anneal_Langevin_dynamics(START, score, LADDER, verbose=True, **PUBLISHED)[
        -1
    ],
    "ncsnv2, inpainting": lambda score: ncsnv2.anneal_Langevin_dynamics_inpainting(
        START, KNOWN, score, LADDER, 6, **PUBLISHED
    )[-1],
    "ncsnv2, interpolation": lambda score: ncsnv2.anneal_Langevin_dynamics_interpolation(
        START, score, LADDER, 2, **PUBLISHED
    )[-1],
    "score_sde": published_pc,
    "score_sde, inpainting": inpainted_pc,
    "score_sde, a predictor": lambda score: torch.no_grad()(one_prediction)(score),
    "k-diffusion": lambda score: k_diffusion.sample_euler_ancestral(score, START, [*LADDER, 0.0], disable=True, seed=3),
    "k-diffusion, watched": lambda score: k_diffusion.sample_euler_ancestral(
        score, START, [*LADDER, 0.0], disable=True, seed=3, callback=lambda seen: None
    ),
}

# The score of the energy sum cos(x), after (x + 1) - 1, which changes a state by roundings. PyTorch takes -sin for the
# derivative of cos, so that all ways of writing it have the same bits.
WEIGHT = nn.Parameter(torch.tensor(1.0))


def plain(x, *level):
    return torch.sin(x + 1 - 1) * WEIGHT


def in_place(x, *level):
    return x.add_(1).sub_(1).sin_() * WEIGHT


def by_data(x, *level):
    return torch.sin(x.data.add_(1).sub_(1)) * WEIGHT


def by_numpy(x, *level):
    numbers = x.numpy()
    numbers += 1
    numbers -= 1
    return torch.sin(x) * WEIGHT


def returning_its_memory(x, *level):
    return x.copy_(plain(x))


def of_a_level(x, *level):
    factor = torch.as_tensor(level[0], dtype=x.dtype).reshape(-1, 1, 1) if level else 1.0
    return plain(x) * (1 + factor / 8)


def on_labels(x, *level):
    value = of_a_level(x, *level)
    for each in level:
        if isinstance(each, torch.Tensor):
            each.add_(1)
    return value


WRITING = [in_place, by_data, by_numpy, returning_its_memory]


@pytest.mark.parametrize("score", WRITING)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_score_may_write_to_what_it_is_given(name, score):
    start, known = START.clone(), KNOWN.clone()
    assert torch.equal(SAMPLERS[name](score), SAMPLERS[name](plain))
    assert torch.equal(START, start)
    assert torch.equal(KNOWN, known)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_score_may_write_to_its_labels(name):
    assert torch.equal(SAMPLERS[name](on_labels), SAMPLERS[name](of_a_level))


def energy(x):
    return torch.cos(x + 1 - 1).sum() * WEIGHT


def detaching(x, *level):
    x = x.detach().requires_grad_(True)
    return -torch.autograd.grad(energy(x), x)[0]


def marking(x, *level):
    x.requires_grad_()
    return -torch.autograd.grad(energy(x), x, create_graph=True)[0]


def backward(x, *level):
    x.requires_grad_()
    energy(x).backward()
    return -x.grad


def enabling(x, *level):
    with torch.enable_grad():
        return marking(x)


def enabling_backward(x, *level):
    with torch.enable_grad():
        return backward(x)


def functional(x, *level):
    return -torch.func.grad(energy)(x)


def hooked(x, *level):
    """Fails without gradients by what it asks of a tensor before it takes the gradient."""
    x = x.detach().requires_grad_()
    y = x + 1
    y.retain_grad()
    (torch.cos(y - 1).sum() * WEIGHT).backward()
    return -y.grad


USING_AUTOGRAD = [detaching, marking, backward, enabling, enabling_backward, functional, hooked]


@pytest.mark.parametrize("score", USING_AUTOGRAD)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_score_may_use_autograd(name, score):
    got = SAMPLERS[name](score)
    assert torch.equal(got, SAMPLERS[name](plain))
    assert not got.requires_grad
    assert not START.requires_grad
    assert START.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_callers_mode_does_not_matter(name, mode):
    wants = {score: SAMPLERS[name](score) for score in (plain, of_a_level)}
    for score in (plain, in_place, by_data, on_labels, detaching, marking):
        with mode():
            got = SAMPLERS[name](score)
        assert torch.equal(got, wants[of_a_level if score is on_labels else plain])
        assert not got.requires_grad


def per_sample(x, *level):
    return torch.cos(x).flatten(1).sum(1)


@pytest.mark.parametrize("energies", [per_sample, lambda *given: per_sample(*given)[:, None], lambda x, *_: x.sum()])
@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"a drift"}))  # which is broadcast to the score
def test_an_energy_in_the_place_of_a_score_is_told_what_to_return(name, energies):
    with pytest.raises(ValueError, match=r"must return a score of the shape of x.*minus its gradient.*autograd\.grad"):
        SAMPLERS[name](energies)


def test_another_shape_is_not_taken_for_an_energy():
    with pytest.raises(ValueError, match=r"got \(4, 2\)$"):
        fl.annealed_langevin(lambda x, labels: x[..., 0], LADDER, **CHAIN)
    with pytest.raises(TypeError, match="score must return a tensor of the shape of x, got tuple"):
        fl.annealed_langevin(lambda x, labels: (x,), LADDER, **CHAIN)


@pytest.mark.parametrize("write", [lambda x, labels: x.relu_(), lambda x, labels: labels.add_(1)])
def test_a_write_that_the_first_call_did_not_make_is_refused(write):
    calls = []

    def score(x, labels):
        calls.append(0)
        if len(calls) > 2:
            write(x, labels)
        return -x

    with pytest.raises(RuntimeError, match=r"score wrote to the state or the level that it was given.*x\.clone\(\)"):
        fl.annealed_langevin(score, LADDER, **CHAIN)
    assert len(calls) == 3


def test_a_first_layer_in_place_is_found_where_it_first_changes_nothing():
    """Of a state that begins in [0, 1] a rectifier changes no number."""

    def chain(inplace):
        net = nn.Sequential(nn.ReLU(inplace=inplace))
        return fl.annealed_langevin(
            lambda x, labels: 1 - 2 * net(x), LADDER, shape=SHAPE, epsilon=1e-2, seed=0, steps_per_level=3
        )

    assert torch.equal(chain(True), chain(False))


OTHER_VIEWS = [lambda x, *_: x.transpose(1, 2), lambda x, *_: x[:, :1].expand(x.shape)]


@pytest.mark.parametrize("order", ["score", "noise"])
def test_a_score_may_return_the_state_but_no_other_view_of_it(order):
    start = fl.randn((4, 3, 3), seed=1)
    chain = {**CHAIN, "init": start, "telemetry": 1, "full_output": True, "order": order}
    want = fl.annealed_langevin(lambda x, labels: x.clone(), LADDER, **chain)
    for view in (lambda x, *_: x, lambda x, *_: x.view(4, 9).view(4, 3, 3)):
        got = fl.annealed_langevin(view, LADDER, **chain)
        assert torch.equal(got.samples, want.samples)
        assert torch.equal(got.telemetry.score_norm, want.telemetry.score_norm)
    for view in OTHER_VIEWS:
        with pytest.raises(ValueError, match=r"x and score overlap in memory.*score\.clone\(\)"):
            fl.annealed_langevin(view, LADDER, **chain)


@pytest.mark.parametrize("view", OTHER_VIEWS)
def test_any_view_of_the_state_is_welcome_where_the_update_is_not_in_place(view):
    start = fl.randn((4, 3, 3), seed=1)
    for watch in (None, lambda seen: None):
        got, want = (
            k_diffusion.sample_euler_ancestral(model, start, LADDER, disable=True, seed=3, callback=watch)
            for model in (view, lambda x, sigma: view(x).clone())
        )
        assert torch.equal(got, want)


def test_what_verbose_prints_of_a_score_that_returns_the_state(capsys):
    def printed(score):
        ncsnv2.anneal_Langevin_dynamics(START, score, LADDER, verbose=True, **PUBLISHED)
        return capsys.readouterr().out

    assert printed(lambda x, labels: x) == printed(lambda x, labels: x.clone())


def test_a_score_may_return_its_buffer_but_not_share_it_with_the_drift():
    buffer = torch.empty(SHAPE)

    def score(x, labels):
        return torch.sin(x, out=buffer)

    want = fl.annealed_langevin(lambda x, labels: torch.sin(x), LADDER, **CHAIN, denoise=True)
    assert torch.equal(fl.annealed_langevin(score, LADDER, **CHAIN, denoise=True), want)
    with pytest.raises(RuntimeError, match=r"drift wrote to the tensor that score returned.*\.clone\(\)"):
        fl.annealed_langevin(score, LADDER, **CHAIN, drift=score)
    fl.annealed_langevin(lambda x, labels: score(x, labels).clone(), LADDER, **CHAIN, drift=score)


class Watched:
    """A network with a weight; counts what autograd keeps, and remembers which memory it was given."""

    def __init__(self):
        self.net = nn.Linear(6, 6)
        self.given, self.kept = [], 0

    def __call__(self, x, *level):
        self.given.append((x.data_ptr(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda each: each):
            return self.net(x)

    def keep(self, each):
        self.kept += 1
        return each


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_ordinary_network_gets_the_state_itself_and_keeps_no_graph(mode):
    score, live = Watched(), []
    with mode():
        fl.annealed_langevin(score, LADDER, **CHAIN, callback=lambda info: live.append(info.x.data_ptr()))
        inference = torch.is_inference_mode_enabled()
    assert score.kept == 0
    assert score.given[1:] == [(live[0], False, inference)] * 5
    assert score.given[0][0] != live[0]
    with torch.enable_grad():
        score(START)
    assert score.kept > 0, "the count must see a graph where there is one"


def test_the_graph_of_an_energy_does_not_outlive_its_call():
    kept = []

    def score(x, labels):
        point = x.detach().requires_grad_()
        middle = torch.cos(point * WEIGHT)
        kept.append(weakref.ref(middle))
        return -torch.autograd.grad(middle.sum(), point, create_graph=True)[0]

    def callback(info):
        assert not info.x.requires_grad
        assert all(each() is None for each in kept)

    fl.annealed_langevin(score, LADDER, **CHAIN, callback=callback)
    assert len(kept) == 6 + 1  # the first call, made again with gradients enabled


def test_the_messages_of_autograd_are_known():
    """If PyTorch changes them, a score that needs gradients is no longer recognised."""
    x = torch.ones(2)
    with torch.no_grad():
        for ask in (lambda: torch.autograd.grad(x.sum(), x), x.retain_grad, lambda: x.register_hook(print)):
            with pytest.raises(RuntimeError) as error:
                ask()
            assert NEEDS_GRADIENTS.search(str(error.value))
        with pytest.raises(RuntimeError) as error:
            x @ torch.ones(3)
        assert not NEEDS_GRADIENTS.search(str(error.value))


def test_other_errors_are_raised_after_one_call():
    calls = []

    def score(x, labels):
        calls.append(0)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        fl.annealed_langevin(score, LADDER, **CHAIN)
    assert len(calls) == 1


def test_a_gradient_without_its_point_is_still_an_error():
    with pytest.raises(RuntimeError, match="does not require grad"):
        fl.annealed_langevin(lambda x, labels: torch.autograd.grad(energy(x).detach(), x)[0], LADDER, **CHAIN)


@pytest.mark.parametrize("score", [in_place, by_data, on_labels, detaching, marking, enabling_backward])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_replayed_updates_have_the_same_bits(score, mode, monkeypatch):
    """A stand-in for the graphs calls again what it captured, so that writes of a replay reach the state, too."""

    class Again:
        def warm(self, update):
            update()

        def capture(self, update):
            update()
            return update

        def close(self):
            pass

    want = fl.annealed_langevin(of_a_level if score is on_labels else plain, LADDER, **CHAIN)
    monkeypatch.setattr(replaying, "graphs_for", lambda device: Again())
    with mode():
        got = fl.annealed_langevin(score, LADDER, **CHAIN, cuda_graph=True)
    assert torch.equal(got, want)


@pytest.mark.parametrize("score", [in_place, detaching])
def test_a_stopped_chain_goes_on_in_any_mode(score):
    rest = {key: value for key, value in CHAIN.items() if key not in ("seed", "init")}
    with torch.inference_mode():
        left = fl.annealed_langevin(
            plain, LADDER, **CHAIN, callback=lambda info: info.step == 3, full_output=True
        ).state
        state = fl.ChainState(**{**vars(left), "x": left.x + 0})  # an inference tensor
        got = fl.annealed_langevin(score, LADDER, **rest, resume=state)
    assert torch.equal(got, fl.annealed_langevin(plain, LADDER, **CHAIN))
    assert torch.equal(fl.annealed_langevin(score, LADDER, **rest, resume=state), got)


def test_states_that_are_not_numbers_count_as_unchanged():
    score = Guarded("score", lambda x: -x)
    x = torch.tensor([[torch.nan, 1.0]])
    score(x)
    assert not score.copies
    score = Guarded("score", lambda x: -x.data.mul_(2))
    score(torch.tensor([[torch.nan, 1.0]]))
    assert score.copies


def test_a_transform_and_a_compiler_see_copies():
    def step(x):
        return fl.adapt(lambda x, labels: x.mul_(2), LADDER, output="denoised")(x, torch.zeros(2, dtype=torch.int64))

    x = torch.ones(3, 2, 4)
    want = torch.stack([step(each.clone()) for each in x])
    assert torch.equal(torch.vmap(step)(x), want)
    assert torch.equal(torch.compile(step, backend="eager", fullgraph=True)(x[0]), want[0])
    assert torch.equal(x, torch.ones(3, 2, 4))


@pytest.mark.parametrize("score", [marking, enabling_backward])
def test_autograd_may_be_used_at_some_levels_alone(score):
    def late(x, labels):
        return plain(x) if int(labels[0]) == 0 else score(x)

    got = fl.annealed_langevin(late, LADDER, **CHAIN)
    assert torch.equal(got, fl.annealed_langevin(plain, LADDER, **CHAIN))
    assert not got.requires_grad


def test_the_gradient_of_the_callers_own_state_is_left_alone():
    score = Guarded("score", lambda x: torch.sin(x) * 1.0)
    x = START.clone().requires_grad_()
    with torch.no_grad():
        for _ in range(3):
            assert not score(x).requires_grad
    assert x.requires_grad
    (gradient,) = torch.autograd.grad(score(x).sum(), x)
    torch.testing.assert_close(gradient, torch.cos(START))
