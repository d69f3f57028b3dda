"""Samplers on an MLP: when a kernel makes its chains, and that stops, callbacks and batches change no bit of them."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import fastlangevin as fl
from fastlangevin.models import MLP, MLPConfig, mlp_chain

SIGMAS = fl.geometric_sigmas(1.0, 0.1, 4)
RUN = {"epsilon": 2e-3, "steps_per_level": 12, "seed": 5, "denoise": True, "full_output": True}


@pytest.fixture(autouse=True)
def needs_kernels():
    if fl.runtime.explain("cpu")["cpp"] != "available":
        pytest.skip("no C++ compiler and no built library")


def trained(**options):
    """A network with weights of some size everywhere, in evaluation mode."""
    net = MLP(SIGMAS, MLPConfig(**{"features": 2, "width": 16, "depth": 2, "mean": 0.1, "std": 0.7, **options}))
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.add_(0.2 * fl.randn((1, *parameter.shape), seed=index)[0])
    return net.eval()


def sample(net, shape=(20, 2), **options):
    return fl.annealed_langevin(net, SIGMAS, shape=shape, **{**RUN, **options})


def is_kernel(result):
    return result.record.get("chain") == "kernel"


@pytest.mark.parametrize("conditioning", ["label", "log_sigma"])
@pytest.mark.parametrize("activation", ["silu", "elu", "softplus", "relu", "tanh"])
def test_the_kernel_follows_the_module(activation, conditioning):
    net = trained(activation=activation, conditioning=conditioning, depth=3)
    made, loop = sample(net, trajectory=7), sample(net, trajectory=7, chain="loop")
    assert is_kernel(made)
    assert not is_kernel(loop)
    # The chains contract, so that 48 updates' roundings stay a few of the state's.
    torch.testing.assert_close(made.samples, loop.samples, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(made.trajectory, loop.trajectory, rtol=2e-5, atol=2e-5)
    assert made.evaluations == loop.evaluations
    with torch.no_grad():
        net.head.bias.add_(0.01)  # read at the call
    assert (sample(net).samples - made.samples).abs().max() > 1e-4


@pytest.mark.parametrize("conditioning", ["label", "log_sigma"])
def test_a_callback_may_change_the_weights(conditioning):
    def changing(net):
        def change(info):
            for parameter in net.parameters():
                parameter.data.mul_(0.9)
            net.head.bias = nn.Parameter(net.head.bias.detach() + 0.01)

        return change

    net, found = trained(conditioning=conditioning), []
    for chain in ("kernel", "loop"):
        changed = copy.deepcopy(net)
        found.append(sample(changed, chain=chain, callback=changing(changed)).samples)
    # As those of unchanged weights.
    torch.testing.assert_close(*found, rtol=2e-5, atol=2e-5)
    assert (found[0] - sample(net).samples).abs().max() > 1e-3


def test_watching_and_stopping_change_no_bits():
    net = trained()
    whole = sample(net, trajectory=5)
    watched = []
    seen = sample(net, trajectory=5, callback=lambda info: watched.append(info.step), progress=True)
    assert watched == list(range(1, 49))
    for at in (1, 12, 47):
        stopped = sample(net, trajectory=5, callback=lambda info, at=at: info.step == at)
        assert is_kernel(stopped)
        resumed = sample(net, None, trajectory=5, seed=None, resume=stopped.state)
        for other in (seen, resumed):
            assert torch.equal(other.samples, whole.samples)
            assert torch.equal(other.trajectory, whole.trajectory)
            assert other.record == whole.record


def test_a_sample_does_not_depend_on_its_batch():
    net = trained()
    whole = sample(net, (70, 2)).samples
    assert torch.equal(sample(net, (3, 2), sample_offset=50).samples, whole[50:53])
    assert not torch.equal(sample(net, (3, 2), sample_offset=51).samples, whole[50:53])
    assert torch.equal(sample(net, (2, 2), sample_ids=[9, 4]).samples, whole[[9, 4]])


def test_a_chain_goes_on_as_it_was_begun(caplog):
    net = trained()
    stopped = sample(net, chain="loop", callback=lambda info: info.step == 20)
    resumed = sample(net, None, seed=None, resume=stopped.state)
    assert not is_kernel(resumed)
    assert torch.equal(resumed.samples, sample(net, chain="loop").samples)
    with pytest.raises(ValueError, match=r"chain='kernel' needs a kernel .*begun update by update"):
        sample(net, None, seed=None, resume=stopped.state, chain="kernel")
    begun = sample(net, callback=lambda info: info.step == 20)
    with caplog.at_level(logging.WARNING, "fastlangevin"):
        assert not is_kernel(sample(net, None, seed=None, resume=begun.state, chain="loop"))
    assert "a chain that a kernel began goes on update by update" in caplog.text


class Other(MLP):
    def features(self, u, labels):
        return 2 * super().features(u, labels)


def hooked(net):
    net.layers[1].register_forward_hook(lambda module, inputs, output: 2 * output)


def overridden(net):
    net.features = lambda u, labels: u


def parametrised(net):
    parametrizations.weight_norm(net.layers[0])


def patched(net):
    plain = net.layers[1].forward
    net.layers[1].forward = lambda h: 2 * plain(h)


def activated(net):
    net.activation = nn.functional.gelu


def unbiased(net):
    net.layers[0].bias = None


def replaced(net):
    net.layers[0] = nn.Sequential(nn.Linear(2, 16))


def resized(net):
    net.layers[1] = nn.Linear(16, 8)


def narrowed(net):
    net.head = nn.Linear(16, 1)


def broadcast(net):
    net.layers[1].weight = nn.Parameter(torch.ones(16, 1))


def deepened(net):
    net.layers.append(nn.Linear(16, 16))


def in_another_dtype(net):
    weight = net.layers[1].weight.detach()
    del net.layers[1].weight
    net.layers[1].weight = weight.double()


def scaled(net):
    net.levels.max_norm = 0.1


# What a kernel would read past its end, or as another dtype.
UNFIT = {
    "resized": ("layers.1.weight has the shape (8, 16) and not (16, 16)", resized),
    "narrowed": ("head.weight has the shape (1, 16) and not (2, 16)", narrowed),
    "broadcast": ("layers.1.weight has the shape (16, 1) and not (16, 16)", broadcast),
    "deepened": ("its layers are not those of its configuration", deepened),
    "no parameter": ("layers.1.weight is torch.float64", in_another_dtype),
}


@pytest.mark.parametrize(("reason", "change"), UNFIT.values(), ids=UNFIT)
def test_a_network_of_other_sizes_runs_in_the_loop_or_fails_there(reason, change):
    net = trained()
    change(net)
    assert reason in net.why_no_kernel(torch.zeros(20, 2), "auto")
    results = []
    for chain in ("auto", "loop"):
        try:
            results.append(sample(net, chain=chain).samples.tolist())
        except (RuntimeError, ValueError) as error:
            results.append(str(error))
    assert results[0] == results[1]


CHANGES = {
    "scaled": ("its levels are scaled to a largest norm", scaled),
    "training mode": ("training mode; call net.eval()", lambda net: net.train()),
    "hooked": ("has hooks", hooked),
    "overridden": ("one of its methods is overridden", overridden),
    "patched": ("one of its methods is overridden", patched),
    "activated": ("its activation is not the silu of its configuration", activated),
    "parametrised": ("parametrisations", parametrised),
    "replaced": ("its layers are of class Sequential", replaced),
    "unbiased": ("one of its layers has no bias", unbiased),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_network_that_was_changed_runs_in_the_loop(name, caplog):
    net = trained()
    reason, change = CHANGES[name]
    change(net)
    mlp_chain.log_once.cache_clear()
    with caplog.at_level(logging.INFO, "fastlangevin"):
        results = [sample(net) for _ in range(2)]
    assert caplog.text.count("chains of an MLP run update by update") == 1
    assert reason in caplog.text
    assert not is_kernel(results[0])
    # Not of the first run: an embedding with a largest norm scales its rows when they are looked up, some of them twice
    # before rounding leaves them below it, so that the first updates had other weights.
    assert torch.equal(results[1].samples, sample(net, chain="loop").samples)
    with pytest.raises(ValueError, match=f"chain='kernel' needs a kernel .*{reason}".replace("()", r"\(\)")):
        sample(net, chain="kernel")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"features": 33}, "features is 33, and the kernels hold 32"),
        ({"width": 129}, "width is 129, and the kernels hold 128"),
        ({"depth": 5}, "depth is 5, and the kernels hold 4"),
    ],
)
def test_a_larger_network_runs_in_the_loop(options, reason):
    net = trained(**options)
    shape = (4, net.config.features)
    assert not is_kernel(sample(net, shape))
    with pytest.raises(ValueError, match=f"chain='kernel' needs a kernel .*{reason}"):
        sample(net, shape, chain="kernel")


def test_subclasses_autocast_and_other_dtypes_run_in_the_loop():
    net = trained()
    other = Other(SIGMAS, net.config).eval()
    other.load_state_dict(net.state_dict())
    assert not is_kernel(sample(other))
    assert not is_kernel(sample(trained().double(), dtype=torch.float64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_kernel(sample(net))
    assert not is_kernel(sample(net, impl="reference"))
    for options in ({"clamp": (-1.0, 1.0)}, {"order": "noise"}, {"drift": lambda x, labels: -x}):
        assert not is_kernel(sample(net, **options))
        with pytest.raises(ValueError, match=f"{next(iter(options))}.* acts between two updates"):
            sample(net, chain="kernel", **options)


def test_ready_networks_keep_the_kernel():
    net = trained()
    assert torch.equal(sample(fl.models.for_sampling(net)).samples, sample(net).samples)
    assert not is_kernel(sample(fl.models.for_sampling(net, dtype=torch.bfloat16)))


def test_the_other_samplers_use_it():
    net = trained()
    options = {"shape": (6, 2), "seed": 1, "full_output": True}
    for run in (
        lambda **more: fl.consistent_annealed(net, SIGMAS, epsilon=2e-2, **options, **more),
        lambda **more: fl.predictor_corrector(net, SIGMAS, snr=0.1, predictor="reverse_diffusion", **options, **more),
    ):
        made, loop = run(), run(chain="loop")
        assert is_kernel(made)
        torch.testing.assert_close(made.samples, loop.samples, rtol=2e-5, atol=2e-5)


def test_one_level_needs_a_level():
    with pytest.raises(TypeError, match="labels"):
        fl.langevin(trained(), torch.zeros(2, 2), steps=3, epsilon=1e-3, seed=0)


def test_weights_that_are_not_finite_are_named():
    net = trained()
    with torch.no_grad():
        net.layers[1].weight[3, 2] = float("nan")
    with pytest.raises(ValueError, match=r"layers\.1\.weight of the network has the value nan"):
        sample(net)


def test_a_ladder_longer_than_the_networks_is_refused():
    longer = fl.geometric_sigmas(1.0, 0.1, 6)
    with pytest.raises(ValueError, match=r"level number [45], but the network was built with 4 levels"):
        fl.annealed_langevin(trained(), longer, shape=(2, 2), **RUN)


def test_matrix_units_need_a_gpu():
    for matmul in ("tf32", "bf16"):
        with pytest.raises(ValueError, match=f"matmul='{matmul}' needs the matrix units of a GPU, but impl='cpp'"):
            sample(trained(), matmul=matmul)
        with pytest.raises(ValueError, match=f"matmul='{matmul}' needs a kernel"):
            sample(trained().train(), matmul=matmul)
        with pytest.raises(ValueError, match="matmul="):
            sample(lambda x, labels: -x, matmul=matmul)


CLUSTER = 0.5  # standard deviation of the two clusters at (1, 1) and (-1, -1)
MIXTURE = fl.GaussianMixture([0.5, 0.5], [[1.0, 1.0], [-1.0, -1.0]], CLUSTER**2)


def exact():
    """The network whose score is the mixture's, -x/t + m tanh(m x/t)/t with t = CLUSTER^2 + sigma^2 and m = (1, 1).

    The frame gives -x/t and u = x/sqrt(t). Each level has a unit tanh(m u/sqrt(t)), of weight A: at other levels it is
    1. A second one is 1 at the level and -1 elsewhere, of weight A/2: with the head's bias, -1/2 of all A, the ones sum
    to zero.
    """
    count = len(SIGMAS)
    net = MLP(SIGMAS, MLPConfig(features=2, width=2 * count, depth=1, std=CLUSTER, activation="tanh")).double()
    sigma = SIGMAS.double()
    total = CLUSTER**2 + sigma**2
    weight = sigma / (CLUSTER * total.sqrt())
    here = torch.eye(count, dtype=torch.float64)
    with torch.no_grad():
        net.layers[0].weight.zero_()[:count] = total.rsqrt()[:, None]
        net.layers[0].bias.zero_()
        net.levels.weight.copy_(40 * torch.cat((1 - here, 2 * here - 1), dim=1))
        net.head.weight.copy_(torch.cat((weight, weight / 2)).expand(2, -1))
        net.head.bias.fill_(-weight.sum() / 2)
    return net.eval()


def test_chains_of_a_network_with_the_score_of_a_mixture_are_the_mixture_s():
    """Chain by chain, with the same noise; the mixture's chains are held to their exact law in test_chain_laws.py."""
    x = 2 * fl.randn((50, 2), seed=0, dtype=torch.float64)
    labels = torch.arange(50) % 4
    net, mixture = exact(), MIXTURE.perturbed(SIGMAS)
    torch.testing.assert_close(net(x, labels), mixture(x, labels), rtol=1e-6, atol=1e-6)  # its ladder is in fp32
    net = net.float()
    options = {"shape": (2000, 2), "init": "normal"}
    made, want = sample(net, **options), sample(MIXTURE, **options)
    assert is_kernel(made)
    # Two chains part, per update, by at most 1 + a (2/t - 1)/t, the slope between the clusters: 44 times in all 48. Of
    # each update's score some 2^-21 may be other roundings, and a times it is below 1: 48 x 44 x 2^-21 = 1e-3.
    tolerance = 1e-3
    assert (made.samples - want.samples).abs().max() < tolerance
    assert 0.4 < (made.samples.sum(1) > 0).double().mean() < 0.6
    for wrong in ({"temperature": 1.01}, {"temperature": 0.99}, {"epsilon": 1.01 * RUN["epsilon"]}, {"seed": 6}):
        assert (sample(net, **options, **wrong).samples - want.samples).abs().max() > 10 * tolerance
    with torch.no_grad():
        net.head.weight.mul_(1.01)
    assert (sample(net, **options).samples - want.samples).abs().max() > 10 * tolerance
