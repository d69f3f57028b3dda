"""A score that knows its ladder is sampled on that one: others are refused, unless the caller insists."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import fastlangevin as fl
from fastlangevin import shards
from fastlangevin.compat import ncsn, ncsnv2, score_sde
from fastlangevin.models import MLP, MLPConfig, for_sampling

pytestmark = pytest.mark.usefixtures("one_thread")

# As long as they are, labels of one are places in the other.
LADDER = fl.geometric_sigmas(1.0, 0.1, 4)
OTHER = fl.geometric_sigmas(2.0, 0.1, 4)
ANOTHER = {
    "of the same length": OTHER,
    "in one level": [1.0, 0.5, 0.2, 0.1],
    "shorter": OTHER[::2],
    "the first levels": LADDER[:2],
    "the last levels": LADDER[2:],
    "longer": fl.geometric_sigmas(1.0, 0.1, 5),
    "longer by a level": [*LADDER.tolist(), 0.05],
    "within a thousandth": LADDER * 1.001,
}
THE_SAME = {
    "fp64": LADDER,
    "fp32": LADDER.float(),
    "computed in fp32": torch.exp(torch.linspace(0.0, float(np.log(0.1)), 4, dtype=torch.float32)),
    "an array": LADDER.numpy(),
    "numbers": LADDER.tolist(),
    "the network's": MLP(LADDER).sigmas,
}
START = fl.rand((3, 2), seed=5)
MIXTURE = fl.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], 0.3)


def network():
    torch.manual_seed(0)
    net = MLP(LADDER, MLPConfig(width=8, depth=1)).eval()
    nn.init.normal_(net.head.weight)
    return net


NET = network()


class Compiled(nn.Module):
    """As torch.compile wraps a module, without the seconds of importing the compiler."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net

    def forward(self, x, labels):
        return self._orig_mod(x, labels)


class Theirs(nn.Module):
    """A network of another code base, with its ladder."""

    def __init__(self, sigmas):
        super().__init__()
        self.register_buffer("sigmas", torch.as_tensor(sigmas, dtype=torch.float32))

    def forward(self, x, labels):
        return -x / self.sigmas[labels][:, None] ** 2


@functools.wraps(NET)
def decorated(x, labels):
    return NET(x, labels)


SCORES = {
    "a network": NET,
    "for sampling": for_sampling(NET),
    "for sampling in half precision": for_sampling(NET, dtype=torch.bfloat16),
    "data parallel": nn.DataParallel(NET),
    "its average": AveragedModel(NET),
    "compiled": Compiled(NET),
    "compiled for sampling, in parallel": nn.DataParallel(for_sampling(Compiled(NET))),
    "a partial function": functools.partial(NET),
    "a method": NET.forward,
    "decorated": decorated,
    "adapted": fl.adapt(NET, LADDER),
    "adapted from sigmas": fl.adapt(lambda x, sigma: -x, LADDER, takes="sigma", output="noise"),
    "adapted in parallel": fl.adapt(nn.DataParallel(NET), LADDER, output="scaled"),
    "a mixture on a ladder": MIXTURE.perturbed(LADDER),
    "another code base's": Theirs(LADDER),
}

MANY = {"shape": (3, 2), "seed": 0}
SAMPLERS = {
    "annealed_langevin": lambda score, sigmas, **options: fl.annealed_langevin(
        score, sigmas, epsilon=1e-3, steps_per_level=2, **MANY, **options
    ),
    "consistent_annealed": lambda score, sigmas, **options: fl.consistent_annealed(
        score, sigmas, epsilon=0.018, **MANY, **options
    ),
    "predictor_corrector": lambda score, sigmas, **options: fl.predictor_corrector(
        score, sigmas, snr=0.1, **MANY, **options
    ),
    "interpolation": lambda score, sigmas, **options: fl.interpolation(
        score, sigmas, points=2, epsilon=1e-3, steps_per_level=2, **MANY, **options
    ),
    "ncsn": lambda score, sigmas, **options: ncsn.anneal_Langevin_dynamics(START, score, sigmas, 2, seed=0, **options)[
        -1
    ],
    "ncsn, strict": lambda score, sigmas, **options: ncsn.anneal_Langevin_dynamics(
        START, score, sigmas, 2, seed=0, strict=True, **options
    )[-1],
    "ncsn's inpainting": lambda score, sigmas, **options: ncsn.anneal_Langevin_dynamics_inpainting(
        START, START, score, sigmas, 2, seed=0, **options
    )[-1],
    "ncsnv2": lambda score, sigmas, **options: ncsnv2.anneal_Langevin_dynamics(
        START, score, sigmas, 2, seed=0, **options
    )[-1],
    "ncsnv2, verbose": lambda score, sigmas, **options: ncsnv2.anneal_Langevin_dynamics(
        START, score, sigmas, 2, seed=0, verbose=True, **options
    )[-1],
    "ncsnv2's inpainting": lambda score, sigmas, **options: ncsnv2.anneal_Langevin_dynamics_inpainting(
        START, START, score, sigmas, 2, 2, seed=0, strict=True, **options
    )[-1],
    "ncsnv2's interpolation": lambda score, sigmas, **options: ncsnv2.anneal_Langevin_dynamics_interpolation(
        START, score, sigmas, 2, 2, seed=0, **options
    )[-1],
}
REFUSED = r"sigmas must be the ladder that score was built with.*strict_ladder=False"


@pytest.mark.parametrize("ladder", ANOTHER)
def test_another_ladder_is_refused(ladder):
    with pytest.raises(ValueError, match=REFUSED):
        SAMPLERS["annealed_langevin"](NET, ANOTHER[ladder])


@pytest.mark.parametrize("ladder", THE_SAME)
def test_a_ladder_that_is_rounded_otherwise_is_the_same(ladder):
    for score in (NET, fl.adapt(NET, LADDER)):
        assert SAMPLERS["annealed_langevin"](score, THE_SAME[ladder]).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_that_was_rounded_has_its_ladder_still(dtype):
    net = network().to(dtype)
    run = functools.partial(fl.annealed_langevin, net, epsilon=1e-3, steps_per_level=1, dtype=dtype, **MANY)
    assert run(LADDER).isfinite().all()
    with pytest.raises(ValueError, match=REFUSED):
        run(OTHER)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_looks_and_can_be_told_not_to(sampler):
    run, net = SAMPLERS[sampler], Theirs(LADDER)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=REFUSED):
        run(net, OTHER)
    assert torch.equal(torch.get_rng_state(), before)
    unseen = run(lambda x, labels: net(x, labels), OTHER)
    assert torch.equal(run(net, OTHER, strict_ladder=False), unseen)
    assert run(net, LADDER).isfinite().all()


@pytest.mark.parametrize("score", SCORES)
def test_the_ladder_is_found_in_what_wraps_a_network(score):
    run = SAMPLERS["annealed_langevin"]
    with pytest.raises(ValueError, match=REFUSED):
        run(SCORES[score], OTHER)
    assert run(SCORES[score], LADDER).isfinite().all()


class Ascending(nn.Module):
    """Its ``sigmas`` are no ladder of ours."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sigmas", LADDER.flip(0))

    def forward(self, x, labels):
        return -x


@pytest.mark.parametrize("score", [lambda x, labels: -x, MIXTURE, Ascending(), nn.DataParallel(Ascending())])
def test_a_score_that_knows_no_ladder_takes_any(score):
    for sigmas in (LADDER, OTHER, OTHER[::2]):
        assert SAMPLERS["annealed_langevin"](score, sigmas).isfinite().all()


@pytest.mark.parametrize("strict", ["no", None, 0])
@pytest.mark.parametrize("option", ["strict_ladder", "clamp_denoised"])
def test_options_are_true_or_false(option, strict):
    with pytest.raises(TypeError, match=f"{option} must be True or False"):
        SAMPLERS["annealed_langevin"](NET, LADDER, **{option: strict})


def test_adapting_a_network_of_labels_takes_its_own_ladder():
    with pytest.raises(ValueError, match=r"sigmas must be the ladder that net was built with.*strict_ladder=False"):
        fl.adapt(for_sampling(NET), OTHER)
    insisting = fl.adapt(NET, OTHER, strict_ladder=False)
    assert insisting.sigmas == OTHER.tolist()
    assert SAMPLERS["annealed_langevin"](insisting, OTHER).isfinite().all()
    with pytest.raises(ValueError, match=REFUSED):
        SAMPLERS["annealed_langevin"](insisting, LADDER)
    # A network that is told sigma itself has no labels that could be mistaken.
    told = Theirs(LADDER)
    told.forward = lambda x, sigma: -x / sigma[:, None]
    assert fl.adapt(told, OTHER, takes="sigma")(START, torch.zeros(3, dtype=torch.int64)).isfinite().all()


def test_a_kernel_has_no_levels_beyond_the_networks():
    longer = fl.geometric_sigmas(1.0, 0.1, 6)
    with pytest.raises(ValueError, match="built with 4 levels"):
        SAMPLERS["annealed_langevin"](NET, longer, strict_ladder=False)


def test_sharded_sampling_refuses_before_there_is_a_folder(tmp_path):
    run = functools.partial(shards.sample, NET, shape=(3, 2), seed=0, epsilon=1e-3, steps_per_level=1)
    with pytest.raises(ValueError, match=REFUSED):
        run(OTHER, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run(OTHER, tmp_path / "run", strict_ladder=False).complete
    assert run(LADDER, tmp_path / "other").complete


IMAGES = fl.rand((2, 3, 2, 2), seed=1)
DIFFUSED = {
    "get_pc_sampler": lambda sde, **options: score_sde.get_pc_sampler(
        sde, (2, 3, 2, 2), None, "langevin", lambda x: x, 0.1, device="cpu", **options
    ),
    "get_pc_inpainter": lambda sde, **options: (
        lambda model: score_sde.get_pc_inpainter(sde, None, "langevin", lambda x: x, 0.1, **options)(
            model, IMAGES, IMAGES > 0.5
        )
    ),
    "get_pc_colorizer": lambda sde, **options: (
        lambda model: score_sde.get_pc_colorizer(sde, None, "langevin", lambda x: x, 0.1, **options)(model, IMAGES)
    ),
    "get_score_fn": lambda sde, continuous=False, **options: (
        lambda model: score_sde.get_score_fn(sde, model, continuous=continuous, **options)(IMAGES, torch.ones(2))
    ),
}


@pytest.mark.parametrize("made", DIFFUSED)
def test_a_ladder_of_score_sde_is_compared(made):
    class Model(Theirs):
        def forward(self, x, labels):
            return -x / 4

    sde, other = score_sde.VESDE(0.1, 1.0, 4), score_sde.VESDE(0.1, 2.0, 4)
    make, model = DIFFUSED[made], Model(LADDER)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"sde must be the ladder that model was built with.*strict_ladder=False"):
        make(other)(model)
    assert torch.equal(torch.get_rng_state(), before)
    make(other, strict_ladder=False)(model)
    make(sde)(model)
    make(other, continuous=True)(model)  # it is told sigma
    make(score_sde.VPSDE(N=30))(model)
