"""Checkpoints: the round trip keeps every bit, and nothing but an intact file of this package is read."""

import json
import os
import pickle
import threading
from importlib.resources import as_file, files

import pytest
import torch
from safetensors.torch import save_file

import fastlangevin as fl
from fastlangevin import shards
from fastlangevin.models import MLP, NCSN, ConvConfig, ConvScore, MLPConfig, NCSNConfig, NCSNv2, NCSNv2Config
from fastlangevin.models.base import ScoreNet
from fastlangevin.storage import checkpoint, container, stopped_chain
from fastlangevin.storage.published import load_published

SIGMAS = fl.geometric_sigmas(1.0, 0.1, 3)
METADATA = {"data": {"shape": [2]}, "note": "Größe", "sampling": {"epsilon": 2e-5}}


def network():
    torch.manual_seed(0)
    return MLP(SIGMAS, MLPConfig(features=2, width=4, depth=1))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, network(), SIGMAS, metadata=METADATA)
    return path


@pytest.mark.parametrize(
    "net", [network(), ConvScore(SIGMAS, ConvConfig(channels=3, widths=(4, 6), mean=0.2))], ids=["mlp", "conv"]
)
def test_round_trip(net, tmp_path):
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, net, SIGMAS, metadata=METADATA)
    state = torch.get_rng_state()
    loaded = checkpoint.load(path)
    assert torch.equal(torch.get_rng_state(), state), "loading must not draw from the caller's generator"
    assert type(loaded.net) is type(net)
    assert loaded.net.config == net.config
    assert loaded.metadata == METADATA
    assert torch.equal(loaded.sigmas, net.sigmas)
    assert not loaded.net.training
    assert loaded.net.state_dict().keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[key], value), key
    x = fl.rand((4, 3, 8, 8) if isinstance(net, ConvScore) else (4, 2), seed=0)
    labels = torch.tensor([0, 1, 2, 0])
    assert torch.equal(loaded.net(x, labels), net.eval()(x, labels))


def test_methods_of_the_network(tmp_path):
    net = network()
    net.save_pretrained(tmp_path / "net", metadata=METADATA)
    again = MLP.from_pretrained(tmp_path / "net")
    assert torch.equal(again.head.bias, net.head.bias)
    with pytest.raises(ValueError, match="holds a network of class MLP, not ConvScore"):
        ConvScore.from_pretrained(tmp_path / "net")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("network", ["MLP", "NCSN"])
def test_a_network_comes_back_in_the_dtype_that_it_was_saved_in(network, dtype, tmp_path):
    ladder = fl.geometric_sigmas(1.0, 0.01, 4)
    net = MLP(ladder, MLPConfig(width=4)) if network == "MLP" else NCSN(ladder, NCSNConfig(channels=1, width=4))
    net.to(dtype).save_pretrained(tmp_path / "net")
    checkpoint.save(tmp_path / "again", net, ladder)
    for name in ("net", "again"):
        read = type(net).from_pretrained(tmp_path / name)
        assert read.sigmas.dtype == dtype
        assert torch.equal(read.sigmas, net.sigmas)
        for key, value in net.state_dict().items():
            assert read.state_dict()[key].dtype == dtype
            assert torch.equal(read.state_dict()[key], value)


def test_a_network_of_several_dtypes_is_refused(tmp_path):
    net = MLP(fl.geometric_sigmas(1.0, 0.01, 4), MLPConfig(width=4))
    net.head.double()
    with pytest.raises(TypeError, match=r"one floating dtype, got torch.float32, torch.float64; convert it with"):
        net.save_pretrained(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_files_are_read_to_the_cpu_whatever_the_default_device(tmp_path):
    net, cpu = network(), torch.device("cpu")
    checkpoint.save(tmp_path / "net", net, SIGMAS)
    stopped_chain.save(tmp_path / "chain", fl.ChainState(torch.ones(2, 3), 1, 7, record={}))
    shards.sample(net, SIGMAS, tmp_path / "run", shape=(3, 2), seed=1, epsilon=1e-4, steps_per_level=1, device=cpu)
    with torch.device("meta"):
        loaded = checkpoint.load(tmp_path / "net").net
        chain = stopped_chain.load(tmp_path / "chain")
        samples = shards.collect(tmp_path / "run")
    for tensor in (*loaded.state_dict().values(), chain.x, samples):
        assert tensor.device == cpu
    assert torch.equal(loaded.head.weight, net.head.weight)
    assert torch.equal(samples, shards.collect(tmp_path / "run"))


def test_a_bad_device_is_no_reason_to_delete_a_chain(tmp_path):
    stopped_chain.save(tmp_path / "chain", fl.ChainState(torch.ones(2, 3), 1, 7, record={}))
    with pytest.raises(TypeError) as refused:
        stopped_chain.load(tmp_path / "chain", device=["cpu"])
    assert "delete" not in str(refused.value)


def test_same_network_same_bytes(saved, tmp_path):
    network().save_pretrained(tmp_path / "again", metadata=METADATA)
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_flipped_bits_are_refused(saved):
    intact = saved.read_bytes()
    # A step of 3 has no factor in common with the 8 bits: each of them is flipped, in header and weights.
    for position in range(0, len(intact), 3):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << position % 8
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"net\.safetensors"):
            checkpoint.load(saved)
    saved.write_bytes(intact)
    checkpoint.load(saved)


def test_every_truncation_is_refused(saved):
    intact = saved.read_bytes()
    for length in [*range(0, len(intact), 37), len(intact) - 1]:
        saved.write_bytes(intact[:length])
        with pytest.raises(ValueError, match="fetch"):
            checkpoint.load(saved)
    saved.write_bytes(intact + b"\0")
    with pytest.raises(ValueError, match="fetch"):
        checkpoint.load(saved)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickles_are_refused_and_not_run(write, tmp_path):
    path, sprung = tmp_path / "net.pth", tmp_path / "sprung"
    write(Trap(str(sprung)), path)
    with pytest.raises(ValueError, match=r"pickled \.pth files are never read"):
        checkpoint.load(path)
    assert not sprung.exists()


def rewrite(path, change):
    """The file with another description whose digests are right: what only a deliberate hand writes."""
    tensors, description = container.read(path)
    change(description)
    container.write(path, tensors, description)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(network="os.system"), "class 'os.system', this fastlangevin has ConvScore, MLP"),
        (lambda d: d["config"].update(width=5), "does not describe its own weights"),
        (lambda d: d["config"].update(size=5), "does not describe its own weights"),
        (lambda d: d.update(network="ConvScore"), "does not describe its own weights"),
        (lambda d: d.pop("config"), "lacks config"),
        (lambda d: d.pop("format"), "not a checkpoint of fastlangevin.*lacks format"),
        (lambda d: d.update(format=3), "use the version that wrote it"),
        (lambda d: d.update(stream_version=2), "stream version 2"),
    ],
)
def test_other_descriptions_are_refused(saved, change, message):
    rewrite(saved, lambda description: None)
    checkpoint.load(saved)
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(saved)


def test_files_of_the_first_format_are_refused(saved):
    # As format 1 had it: the description first, its digest beside it.
    text = json.dumps({"format": 1})
    header = json.dumps({"__metadata__": {"fastlangevin": text, "sha256": "0" * 64}}).encode()
    saved.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="does not begin with the __metadata__ that this version of the package"):
        checkpoint.load(saved)


def test_the_shipped_checkpoint_is_what_save_writes(tmp_path):
    with as_file(files("fastlangevin") / "assets" / "digits.safetensors") as shipped:
        loaded = checkpoint.load(shipped)
        checkpoint.save(tmp_path / "again", loaded.net, metadata=loaded.metadata)
        assert (tmp_path / "again").read_bytes() == shipped.read_bytes()


def test_a_training_state_is_no_network(tmp_path):
    container.write(tmp_path / "state", {"sigmas": torch.ones(1)}, {"step": 5})
    with pytest.raises(ValueError, match=r"not a checkpoint of fastlangevin.*its description lacks config, format"):
        checkpoint.load(tmp_path / "state")


def test_fallback_takes_the_checkpoint_before(tmp_path, caplog):
    for step in (1, 2):
        checkpoint.save(tmp_path / f"net-{step:010}.safetensors", network(), metadata={"step": step})
    newest = tmp_path / "net-0000000002.safetensors"
    assert checkpoint.load(newest, fallback=True).metadata == {"step": 2}
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(
        ValueError,
        match=r"net-0000000002\.safetensors is not a checkpoint of fastlangevin, or it is damaged \(it has .*; "
        r"fallback=True takes the checkpoint before it, net-0000000001\.safetensors\); fetch or write it again",
    ):
        checkpoint.load(newest)
    assert not caplog.records
    assert checkpoint.load(newest, fallback=True).metadata == {"step": 1}
    assert "skipped a checkpoint" in caplog.text
    assert newest.name in caplog.text


def test_fallback_does_not_pass_over_what_is_intact_but_wrong(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path / f"net-{step:010}.safetensors", network())
    newest = tmp_path / "net-0000000002.safetensors"
    rewrite(newest, lambda description: description.update(format=3))
    with pytest.raises(ValueError, match="use the version that wrote it"):
        checkpoint.load(newest, fallback=True)


def test_foreign_safetensors_are_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a checkpoint of fastlangevin"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_unreadable_paths(name, tmp_path):
    with pytest.raises(RuntimeError, match=r"cannot read .*check the path"):
        checkpoint.load(tmp_path / name)


def test_unwritable_paths(tmp_path):
    with pytest.raises(RuntimeError, match=r"cannot write .*No such file"):
        checkpoint.save(tmp_path / "missing" / "net", network())
    with pytest.raises(RuntimeError, match="is a folder"):
        checkpoint.save(tmp_path, network())


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failure_leaves_the_old_file(saved, call, monkeypatch):
    intact = saved.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, call, full)
        with pytest.raises(RuntimeError, match=r"cannot write .*No space left on device"):
            checkpoint.save(saved, network(), metadata={"new": True})
    assert saved.read_bytes() == intact
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    checkpoint.save(saved, network(), metadata={"new": True})
    assert checkpoint.load(saved).metadata == {"new": True}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"net": torch.nn.Linear(2, 2)}, TypeError, "net must be one of ConvScore, MLP, NCSN, .*, got Linear"),
        ({"sigmas": fl.geometric_sigmas(1.0, 0.2, 3)}, ValueError, "sigmas differ from net.sigmas"),
        ({"metadata": {"x": torch.zeros(1)}}, TypeError, "metadata must be made of dicts"),
        ({"metadata": {"x": float("nan")}}, TypeError, "metadata must be made of dicts"),
        ({"metadata": {5: 1}}, TypeError, "metadata must be made of dicts .* the key 5 is a int"),
    ],
)
def test_what_cannot_be_described_is_refused(arguments, error, message, tmp_path):
    arguments = {"net": network(), **arguments}
    with pytest.raises(error, match=message):
        checkpoint.save(tmp_path / "net", **arguments)
    assert not list(tmp_path.iterdir())


def as_published(net, path):
    torch.save(net.state_dict(), path)
    return load_published


def as_saved(net, path):
    checkpoint.save(path, net)
    return checkpoint.load


@pytest.mark.parametrize("save", [as_saved, as_published])
def test_reading_a_network_leaves_the_generator_of_all_threads_alone_meanwhile(save, tmp_path, monkeypatch):
    read = save(NCSNv2(SIGMAS, NCSNv2Config(channels=1, width=2)), tmp_path / "net")
    torch.manual_seed(0)
    wanted = torch.rand(3)
    begin, drawn = ScoreNet.__init__, []

    def meanwhile(self, *arguments, **options):
        begin(self, *arguments, **options)
        other = threading.Thread(target=lambda: drawn.append(torch.rand(1)))
        other.start()
        other.join()

    monkeypatch.setattr(ScoreNet, "__init__", meanwhile)
    torch.manual_seed(0)
    read(tmp_path / "net")
    assert len(drawn) == 2, "once for the shell, and once for the network"
    assert torch.equal(torch.cat([*drawn, torch.rand(1)]), wanted)
