"""Training: the same configuration gives the same bits, the loss falls, the data are what they say."""

import math
import sys

import numpy as np
import pytest
import torch

import fastlangevin as fl
from fastlangevin import data
from fastlangevin.cli import main
from fastlangevin.losses import DenoisingScoreMatching, dsm_labels, dsm_loss
from fastlangevin.models import MLP, ConvConfig, ConvScore, MLPConfig
from fastlangevin.storage import checkpoint
from fastlangevin.training import Average, Places, TrainConfig, train

SIGMAS = fl.geometric_sigmas(1.0, 0.1, 4)
TINY = {"steps": 60, "batch": 32, "lr": 5e-3, "warmup": 5, "seed": 0}


def build():
    return ConvScore(SIGMAS, ConvConfig(widths=(8,), mean=0.3, std=0.4))


def stripes():
    """64 images of 4x4 pixels, each constant along its rows: easy to learn, unlike a Gaussian."""
    rows = (fl.rand((64, 1, 4, 1), seed=1) > 0.5).float()
    return data.Images(rows.expand(-1, -1, -1, 4).contiguous(), torch.zeros(64, dtype=torch.int64), 2)


def run(**changes):
    losses = []
    config = TrainConfig(**{**TINY, **changes})
    net = train(build, stripes(), config, callback=lambda _, loss: losses.append(loss))
    return net, losses


def gain(net):
    """How far a network's loss is below the untrained one's, in standard errors; the two see the same noise."""
    images = stripes()
    x = data.dequantise(images.images.repeat(16, 1, 1, 1), images.greys, seed=99)
    with torch.no_grad():
        before, after = (dsm_loss(each, x, SIGMAS, seed=98, reduction="none").double() for each in (build(), net))
    return ((before - after).mean() / ((before - after).std() / math.sqrt(len(x)))).item()


def test_the_loss_falls():
    assert gain(run()[0]) > 6
    assert not gain(run(lr=1e-12)[0]) > 6, "a network that does not learn must be caught"


def weights(net):
    return torch.cat([parameter.flatten() for parameter in net.parameters()])


def test_same_seed_same_weights():
    torch.manual_seed(1)
    first, losses = run(steps=12)
    torch.manual_seed(2)
    second, again = run(steps=12)
    other, _ = run(steps=12, seed=1)
    assert losses == again
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize("parts", [1, 2])
def test_every_step_and_micro_batch_has_noise_of_its_own(parts, monkeypatch):
    addresses, forward = [], DenoisingScoreMatching.forward

    def listened(self, net, x, **address):
        addresses.append((address["step"], address["sample_offset"]))
        return forward(self, net, x, **address)

    monkeypatch.setattr(DenoisingScoreMatching, "forward", listened)
    run(steps=3, accumulate=parts)
    size = TINY["batch"] // parts
    assert addresses == [(step, part * size) for step in range(3) for part in range(parts)]


def test_leaves_the_callers_generator_alone():
    state = torch.get_rng_state()
    run(steps=2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_where_gradients_are_off(mode):
    plain, losses = run(steps=3)
    with mode():
        net, others = run(steps=3)
    assert others == losses
    assert torch.equal(weights(net), weights(plain))
    assert all(parameter.requires_grad and not parameter.is_inference() for parameter in net.parameters())


@pytest.mark.parametrize("name", ["lr", "ema", "anneal_power", "weight_decay", "clip"])
def test_what_is_no_number_is_refused_by_its_name(name):
    for value in ("a", None, True, torch.ones(2)):
        with pytest.raises(TypeError, match=f"{name} must be a number, got"):
            TrainConfig(**{name: value})
    with pytest.raises(ValueError, match=f"{name} must be"):
        TrainConfig(**{name: math.nan})


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5), np.float64(0.5)], ids=["f32", "tensor", "f64"])
def test_numbers_of_any_kind_are_kept_as_pythons_own(number, tmp_path):
    config = TrainConfig(lr=number, steps=np.int64(5), clip=number)
    assert [type(value) for value in (config.lr, config.steps, config.clip)] == [float, int, float]
    for net in (
        MLP(SIGMAS, MLPConfig(mean=number, std=number)),
        ConvScore(SIGMAS, ConvConfig(mean=number, std=number)),
    ):
        assert [type(value) for value in (net.config.mean, net.config.std)] == [float, float]
        net.save_pretrained(tmp_path / "net")
        assert type(net).from_pretrained(tmp_path / "net").config == net.config
    for config in (MLPConfig, ConvConfig):
        with pytest.raises(TypeError, match="mean must be a number, got 'a'"):
            config(mean="a")


def test_a_callback_can_stop():
    def stop(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(build, stripes(), TrainConfig(**TINY), callback=stop)


@pytest.mark.parametrize(
    "options",
    [
        {"optimiser": "adamw", "weight_decay": 0.1},
        {"clip": 1.0},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"channels_last": True},
        {"objective": "ssm"},
        {"anneal_power": 1.0},
        {"ema": 0.0},
        {"accumulate": 2},
        {"augment": data.Augment(flip=True)},
    ],
    ids=str,
)
def test_every_option_trains_and_changes_the_run(options):
    plain, losses = run(steps=8)
    net, others = run(steps=8, **options)
    assert all(math.isfinite(loss) for loss in others)
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    assert len(others) == len(losses)
    if options != {"channels_last": True}:
        assert not torch.equal(weights(net), weights(plain))
    _, again = run(steps=8, **options)
    assert again == others


def test_accumulation_sees_the_same_samples_and_noise():
    whole, losses = run(steps=6)
    for parts in (2, 4, 8):
        net, others = run(steps=6, accumulate=parts)
        # Sums over the batch in another order: 32 numbers of alike size, 2^-24 each, which Adam's first steps, of
        # the size of lr whatever the gradient, may turn into a part of 10^-3 of the weights that have none.
        torch.testing.assert_close(torch.tensor(others), torch.tensor(losses), rtol=1e-5, atol=0)
        assert (weights(net) - weights(whole)).norm() < 1e-3 * weights(whole).norm()
    _, other_noise = run(steps=6, seed=1)
    assert not torch.allclose(torch.tensor(other_noise), torch.tensor(losses), rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_clipping_bounds_the_norm_of_the_gradient(parts, monkeypatch):
    norms = []
    step = torch.optim.Adam.step

    def seen(self, *arguments):
        gradients = [each.grad for group in self.param_groups for each in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", seen)
    run(steps=5, accumulate=parts)
    free, norms[:] = list(norms), []
    clip = (min(free) + max(free)) / 2
    run(steps=5, clip=clip, accumulate=parts)
    assert max(norms) <= clip * (1 + 1e-5)
    assert max(free) > clip * 1.01, "the norms are so alike that clipping shows nothing"
    # clip_grad_norm_ divides by norm + 1e-6.
    assert norms[0] == pytest.approx(min(free[0], clip), rel=1e-5)


# Inductor of PyTorch 2.13 uses torch.jit, which has been deprecated meanwhile.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_compiled_network_trains():
    torch._dynamo.reset()
    net, losses = run(steps=3, compile=True)
    _, plain = run(steps=3)
    # Inductor contracts and reorders; the loss of a step follows to some 10^-4 over three steps.
    assert losses == pytest.approx(plain, rel=1e-3)
    assert all(not name.startswith("_orig_mod") for name, _ in net.named_parameters())


def test_a_loss_that_is_not_finite_is_an_error_with_its_step_and_level():
    def network():
        net = build()
        net.register_forward_hook(lambda _, given, h: h.masked_fill((given[1] == 2).reshape(-1, 1, 1, 1), math.inf))
        return net

    step = next(step for step in range(9) if 2 in dsm_labels(4, 4, seed=0, step=step))
    with pytest.raises(RuntimeError, match=rf"the loss is (inf|nan) at step {step} at level 2 .*lower lr"):
        train(network, stripes(), TrainConfig(**{**TINY, "batch": 4}))


# The decay of update t = 1, 2, ...: as score_sde and ncsnv2 have it, and as this package had it before.
DECAYS = {
    "score_sde": lambda t: min(0.5, (1 + t) / (10 + t)),
    "ncsnv2": lambda t: 0.5,
    "from_zero": lambda t: min(0.5, (1 + t - 1) / (10 + t - 1)),
}


def averaged(*rule):
    """The average of twelve updates of a weight that is 2, 0, 1, 2, ... 11."""
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, 2.0)
    average = Average(net, 0.5, *rule)
    for count in range(12):
        with torch.no_grad():
            net.weight.fill_(float(count))
        average.update()
    average.copy_to(net)
    return net.weight.item()


def recurrence(decay):
    expected = 2.0
    for count in range(12):
        expected = decay(count + 1) * expected + (1 - decay(count + 1)) * count
    return expected


@pytest.mark.parametrize("rule", DECAYS)
def test_average_is_the_recurrence(rule):
    assert math.isclose(averaged(rule), recurrence(DECAYS[rule]), rel_tol=1e-5)
    for other in DECAYS:
        assert rule == other or not math.isclose(averaged(rule), recurrence(DECAYS[other]), rel_tol=1e-5)


def test_the_rule_of_averages_is_score_sdes_unless_it_is_named():
    assert averaged() == averaged("score_sde")
    assert TrainConfig().fixed()["ema_rule"] == "score_sde"
    plain, _ = run(steps=8)
    assert torch.equal(weights(plain), weights(run(steps=8, ema_rule="score_sde")[0]))
    for rule in ("ncsnv2", "from_zero"):
        assert not torch.equal(weights(plain), weights(run(steps=8, ema_rule=rule)[0]))


@pytest.mark.parametrize("rule", ["warmup", 1, True, ("ncsnv2",)])
def test_an_unknown_rule_of_averages_is_refused(rule):
    with pytest.raises(ValueError, match=r"ema_rule must be one of score_sde, ncsnv2, from_zero, got"):
        TrainConfig(ema_rule=rule)
    with pytest.raises(ValueError, match=r"^rule must be one of score_sde, ncsnv2, from_zero, got"):
        Average(torch.nn.Linear(1, 1), 0.5, rule)


def test_without_average_the_last_weights_are_returned():
    net = torch.nn.Linear(1, 1, bias=False)
    average = Average(net, 0.0)
    with torch.no_grad():
        net.weight.fill_(3.0)
    average.update()
    assert average.weights["weight"].item() == 3.0


def test_a_gradient_that_is_not_finite_is_an_error_before_it_is_used():
    def network():
        net = build()
        list(net.parameters())[-1].register_hook(lambda gradient: gradient * math.nan if net.calls == 4 else gradient)
        net.calls = 0
        net.register_forward_pre_hook(lambda *_: setattr(net, "calls", net.calls + 1))
        nets.append(net)
        return net

    nets = []
    with pytest.raises(RuntimeError, match=r"the norm of the gradient is nan at step 3; lower lr"):
        train(network, stripes(), TrainConfig(**TINY))
    assert all(parameter.isfinite().all() for parameter in nets[0].parameters())


def test_a_device_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RuntimeError, match="device is cuda, but PyTorch finds no CUDA device"):
        train(build, stripes(), TrainConfig(**TINY), Places(device="cuda"))


def test_rate_rises_and_falls():
    config = TrainConfig(steps=100, lr=1.0, warmup=9)
    rates = [config.rate(step) for step in range(100)]
    assert max(rates) == rates[9] > 0.97
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_missing_scikit_learn_names_the_mend(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "fastlangevin\[train\]"'):
        data.digits()
    assert main(["train", "--out", str(tmp_path / "net.safetensors")]) == 2
    assert 'pip install "fastlangevin[train]"' in capsys.readouterr().err


def test_command_writes_a_checkpoint(tmp_path, capsys):
    pytest.importorskip("sklearn")
    out = tmp_path / "net.safetensors"
    assert main(["train", "--steps", "2", "--batch", "4", "--out", str(out), "--quiet"]) == 0
    assert str(out) in capsys.readouterr().out
    loaded = checkpoint.load(out)
    assert loaded.metadata["data"]["shape"] == [1, 8, 8]
    assert loaded.metadata["training"]["steps"] == 2
    assert loaded.metadata["training"]["ema_rule"] == "score_sde"
    assert {"epsilon", "steps_per_level", "init"} <= loaded.metadata["sampling"].keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.run", out.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "missing/net.safetensors"], "cannot write"),
        (["--out", "."], "cannot write"),
        (["--steps", "0"], "steps must be from 1"),
        (["--lr", "0"], "lr must be positive"),
        (["--ema", "1"], "ema must be in"),
        (["--seed", "-1"], "seed must be from 0"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--accumulate", "3"], "batch must be a multiple of accumulate, got 128 and 3"),
        (["--clip", "-1"], "clip must be zero or more"),
        (["--log-every", "0"], "log_every must be from 1"),
        (["--sigma-1", "0.001"], "sigma_1 must be larger than sigma_L, got 0.001 and 0.01"),
        (["--data", "missing"], "'missing', which is no folder"),
        (["--data", "digits", "--size", "8"], "size is for folders"),
    ],
)
def test_command_refuses_before_it_trains(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err
