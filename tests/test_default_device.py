"""Under a default device: tables of the host stay on the CPU, and tensors go where the caller's are.

"meta" stands for torch.set_default_device("cuda"): whatever is made there by mistake has no numbers to go on with.
"""

import pytest
import torch

import fastlangevin as fl
from fastlangevin import losses
from fastlangevin.compat import ncsn, ncsnv2, score_sde
from fastlangevin.models import MLP, ConvConfig, ConvScore, for_sampling
from fastlangevin.samplers import replaying

pytestmark = pytest.mark.usefixtures("one_thread")

LADDER = [1.0, 0.4, 0.1]
MIXTURE = fl.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], 1.0)
DIAGONAL = fl.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [[1.0, 2.0], [1.0, 2.0]])
MODEL = MLP(LADDER).eval()
CONVOLUTIONS = ConvScore(LADDER, ConvConfig(widths=(4, 4))).eval()
X = fl.randn((2, 2), seed=0)
IMAGES = fl.rand((2, 1, 8, 8), seed=0)
LONG = fl.rand((2, 2000), seed=0)
TIMES = torch.tensor([0.5, 0.2])
LABELS = torch.tensor([0, 1])
SIGMAS = torch.tensor([0.5, 0.4])
REGION = fl.Inpainting(torch.ones(2, dtype=torch.bool), torch.zeros(2), "step")
OPTIONS = {"shape": (4, 2), "device": "cpu", "seed": 1}
ANNEALED = {"epsilon": 1e-3, "steps_per_level": 3, **OPTIONS}
SEEDS = {"seed": None, "sample_ids": [3, 1, 2, 5]}


def generators():
    return [torch.Generator("cpu").manual_seed(seed) for seed in range(4)]


def pc(sde):
    return score_sde.get_pc_sampler(
        sde(N=30), (3, 8), "reverse_diffusion", "ald", lambda x: x, 0.1, device="cpu", seed=0
    )(lambda x, level: -x)


CALLS = {
    "a mixture": lambda: fl.GaussianMixture([0.5, 0.5], [[0.1, 0.0], [1.0, 1.0]], 0.3).table(LADDER),
    "its table": lambda: DIAGONAL.table(LADDER),
    "its score": lambda: MIXTURE.score(X, 0.5),
    "its score at levels": lambda: MIXTURE.score(X, SIGMAS),
    "its score in fp64": lambda: MIXTURE.score(X.double(), 0.5),
    "its density": lambda: MIXTURE.log_prob(X, SIGMAS),
    "its samples": lambda: MIXTURE.sample(3, seed=0, device="cpu"),
    "annealed": lambda: fl.annealed_langevin(MIXTURE, LADDER, **ANNEALED),
    "annealed in the loop": lambda: fl.annealed_langevin(MIXTURE, LADDER, chain="loop", **ANNEALED),
    "seeds and ids": lambda: fl.annealed_langevin(MIXTURE, LADDER, **{**ANNEALED, **SEEDS, "generator": generators()}),
    "watched": lambda: (
        fl.annealed_langevin(
            MIXTURE, LADDER, chain="loop", non_finite="freeze", telemetry=2, full_output=True, **ANNEALED
        ).telemetry.score_norm
    ),
    "replayed": lambda: fl.annealed_langevin(MODEL, LADDER, cuda_graph=True, **ANNEALED),
    "a network": lambda: fl.annealed_langevin(MODEL, LADDER, **ANNEALED),
    "consistent": lambda: fl.consistent_annealed(MIXTURE, LADDER, epsilon=2e-2, **OPTIONS),
    "predictor-corrector": lambda: fl.predictor_corrector(MIXTURE, LADDER, snr=0.1, **OPTIONS),
    "interpolation": lambda: fl.interpolation(MIXTURE, LADDER, points=3, **ANNEALED),
    "inpainting": lambda: fl.interpolation(MIXTURE, LADDER, points=3, inpainting=REGION, **ANNEALED),
    "langevin": lambda: fl.langevin(MIXTURE, X, steps=3, epsilon=0.1, seed=0),
    "adapted": lambda: fl.adapt(lambda x, sigma: -x, LADDER, takes="sigma", output="noise")(X, LABELS),
    "packed": lambda: for_sampling(CONVOLUTIONS)(IMAGES, LABELS),
    "geometric": lambda: fl.geometric_sigmas(1, 0.1, 3),
    "linear": lambda: fl.linear_sigmas(1, 0.1, 3),
    "karras": lambda: fl.karras_sigmas(1, 0.1, 3),
    "continuous": lambda: fl.continuous_ve_sigmas(0.1, 1, 3),
    "ncsn": lambda: ncsn.Langevin_dynamics(IMAGES, CONVOLUTIONS, 2, label=1, seed=0)[-1],
    "ncsnv2": lambda: ncsnv2.anneal_Langevin_dynamics_inpainting(IMAGES, IMAGES, CONVOLUTIONS, LADDER, 8, 2, seed=0)[
        -1
    ],
    "ve": lambda: pc(score_sde.VESDE)[0],
    "vp": lambda: pc(score_sde.VPSDE)[0],
    "subvp": lambda: pc(score_sde.subVPSDE)[0],
    # Kernels sum what is long, and of many samples, in parts.
    "a corrector": lambda: fl.predictor_corrector(lambda x, labels: -x, LADDER, snr=0.1, init=LONG, seed=0),
    "published corrector": lambda: score_sde.LangevinCorrector(
        score_sde.VPSDE(N=30), lambda x, t: -x, 0.1, 2, noise=score_sde.AddressedNoise(seed=0)
    ).update_fn(LONG, TIMES)[0],
    "a loss": lambda: fl.dsm_loss(lambda x, labels: -x, LONG, LADDER, seed=0, reduction="none"),
    "of many samples": lambda: fl.dsm_loss(lambda x, labels: -x, LONG.T.contiguous(), LADDER, seed=0),
    "an objective": lambda: fl.DenoisingScoreMatching(LADDER, output="noise", weights=[1, 2, 3])(MODEL, X, seed=0),
    "its gradient": lambda: gradient(lambda net: fl.dsm_loss(net, X, LADDER, seed=0)),
    "sliced": lambda: gradient(lambda net: losses.annealed_ssm_loss(net, X, LADDER, seed=0)),
    "smld": lambda: score_sde.get_smld_loss_fn(score_sde.VESDE(0.1, 1.0, 3), False)(MODEL, X, seed=0),
    "ddpm": lambda: score_sde.get_ddpm_loss_fn(score_sde.VPSDE(N=30), False)(lambda x, labels: -x, X, seed=0),
    "farthest samples": lambda: torch.tensor(fl.advisor.largest_distance(IMAGES), dtype=torch.float64, device="cpu"),
    "a plan": lambda: fl.plan(IMAGES, budget=100).sigmas,
}


def gradient(loss):
    return torch.autograd.grad(loss(MODEL), MODEL.head.weight)[0]


class Again:
    """In place of CUDA graphs: calls the update that it was given."""

    def warm(self, update):
        update()

    def capture(self, update):
        return update

    def close(self):
        pass


@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_without_one(name, monkeypatch):
    monkeypatch.setattr(replaying, "graphs_for", lambda device: Again() if name == "replayed" else None)
    want = CALLS[name]()
    with torch.device("meta"):
        got = CALLS[name]()
    assert got.device == want.device
    assert torch.equal(got, want)


def test_chains_of_every_kernel_have_their_results(impl):
    options = {
        **ANNEALED,
        "shape": (1, 2),
        "steps_per_level": 1,
        "impl": impl,
        **({} if impl == "reference" else {"chain": "kernel"}),
    }
    want = fl.annealed_langevin(MIXTURE, LADDER, **options)
    with torch.device("meta"):
        assert torch.equal(fl.annealed_langevin(MIXTURE, LADDER, **options), want)
