"""Training: the same configuration gives the same bits, the loss falls, the data are what they say."""

import math
import sys

import pytest
import torch

import fastlangevin as fl
from fastlangevin import checkpoint, data
from fastlangevin.cli import main
from fastlangevin.losses import dsm_loss
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.training import Average, TrainConfig, train

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
    assert gain(run(lr=1e-12)[0]) < 6, "a network that does not learn must be caught"


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


def test_leaves_the_callers_generator_alone():
    state = torch.get_rng_state()
    run(steps=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_callback_can_stop():
    def stop(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(build, stripes(), TrainConfig(**TINY), callback=stop)


def test_a_loss_that_is_not_finite_is_an_error():
    images = stripes()
    images.images[5, 0, 0, 0] = math.nan
    with pytest.raises(RuntimeError, match=r"the loss is nan at step 0 .*lower lr"):
        train(build, images, TrainConfig(**{**TINY, "batch": 64}))


def test_average_is_the_recurrence():
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, 2.0)
    average = Average(net, 0.5)
    expected = 2.0
    for count in range(12):
        with torch.no_grad():
            net.weight.fill_(float(count))
        average.update()
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * count
    average.copy_to(net)
    assert math.isclose(net.weight.item(), expected, rel_tol=1e-5)


def test_without_average_the_last_weights_are_returned():
    net = torch.nn.Linear(1, 1, bias=False)
    average = Average(net, 0.0)
    with torch.no_grad():
        net.weight.fill_(3.0)
    average.update()
    assert average.weights[0].item() == 3.0


def test_rate_rises_and_falls():
    config = TrainConfig(steps=100, lr=1.0, warmup=9)
    rates = [config.rate(step) for step in range(100)]
    assert max(rates) == rates[9] > 0.97
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize(("size", "batch"), [(10, 4), (5, 12), (8, 8)])
def test_epochs_are_permutations(size, batch):
    epochs = 12
    order = torch.cat([data.batch_indices(step, batch, size, seed=0) for step in range(epochs * size // batch)])
    whole = order[: len(order) // size * size].reshape(-1, size)
    assert len(whole) >= epochs - 2
    assert torch.equal(whole.sort(dim=1).values, torch.arange(size).expand_as(whole))
    assert len(whole.unique(dim=0)) > 1, "each epoch has an order of its own"


def test_digits_are_split_once_and_for_all():
    pytest.importorskip("sklearn")
    training, heldout, everything = (data.digits(split) for split in ("train", "heldout", "all"))
    assert training.images.shape == (1497, 1, 8, 8)
    assert heldout.images.shape == (300, 1, 8, 8)
    assert everything.images.aminmax() == (0.0, 1.0)
    assert torch.equal(everything.images * 16, (everything.images * 16).round())

    def rows(images):
        return sorted(map(tuple, images.flatten(1).tolist()))

    assert sorted(rows(training.images) + rows(heldout.images)) == rows(everything.images)
    assert torch.bincount(training.classes).min() > 120
    assert torch.equal(training.images, data.digits("train").images)


def test_dequantisation_fills_the_bins():
    greys = 17
    images = (torch.arange(64) % greys / (greys - 1)).reshape(1, 1, 8, 8).expand(500, 1, 8, 8)
    x = data.dequantise(images, greys, seed=0, step=3)
    assert torch.equal((x * greys).floor() / (greys - 1), images)
    inside = (x * greys - images * (greys - 1)).double()
    error = math.sqrt(1 / 12 / inside.numel())
    assert abs(inside.mean() - 0.5) < 6 * error
    assert abs((inside * 0.9).mean() - 0.5) > 6 * error, "bins that are not filled must be caught"
    assert not torch.equal(x, data.dequantise(images, greys, seed=0, step=4))


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
    assert {"epsilon", "steps_per_level", "init"} <= loaded.metadata["sampling"].keys()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


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
    ],
)
def test_command_refuses_before_it_trains(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err
