"""What a file may claim: sizes, shapes and counts that would take memory are refused before they do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fastlangevin as fl
from fastlangevin.data import Images
from fastlangevin.models.shell import shell, unfilled
from fastlangevin.storage import container, stopped_chain
from fastlangevin.storage.published import load_published
from fastlangevin.training import Places, TrainConfig, train
from fastlangevin.training.log import Log


def ncsn() -> fl.models.NCSN:
    return fl.models.NCSN([1.0, 0.5], fl.models.NCSNConfig(channels=1, width=2))


def test_a_published_file_takes_no_memory_for_what_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    kept = ncsn().state_dict()
    wide = torch.zeros(1).expand(2**20, 1, 3, 3)
    torch.save({**kept, "begin_conv.weight": wide}, path)
    with pytest.raises(ValueError, match=r"begin_conv.weight .* must be a dense tensor"):
        load_published(path, sigmas=[1.0, 0.5])
    # Its own bytes, but those of the rest of such a network would be 10^15.
    torch.save({**kept, "begin_conv.weight": torch.zeros(2**16, 1, 3, 3)}, path)
    with pytest.raises(ValueError, match="does not fit NCSN"):
        load_published(path, sigmas=[1.0, 0.5])


def test_a_compressed_published_file_is_refused(tmp_path: Path) -> None:
    import zipfile

    path, bomb = tmp_path / "published.pth", tmp_path / "bomb.pth"
    torch.save({**ncsn().state_dict(), "zeros": torch.zeros(10**6)}, path)
    for how, message in ((zipfile.ZIP_DEFLATED, "no file of torch.save"), (zipfile.ZIP_STORED, "zeros is unknown")):
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bomb, "w", how) as packed:
            for entry in archive.infolist():
                packed.writestr(entry.filename, archive.read(entry))
        with pytest.raises(ValueError, match=message):
            load_published(bomb, sigmas=[1.0, 0.5])
        assert (bomb.stat().st_size < 2**20) == (how == zipfile.ZIP_DEFLATED)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A file whose description was changed, with the right digests."""
    tensors, description = container.read(path)
    change(description)
    container.write(path, tensors, description)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["config"].update(width=2**40), "tensors are missing, unknown or of another shape"),
        (lambda d: d["config"].update(width=2**15), "tensors are missing, unknown or of another shape"),
        (lambda d: d["config"].update(depth=10**9), "1000000000 layers, and there are"),
        (lambda d: d["config"].update(mean=10**400), "that a float holds, got an integer of 1329 bits"),
        (lambda d: d.update(config=[]), "must be a mapping"),
        (lambda d: d.update(network=[]), r"class \[\], this fastlangevin has"),
        (lambda d: d.update(metadata=[]), "its metadata is a list"),
    ],
)
def test_a_checkpoint_takes_no_memory_for_what_it_claims(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    net = fl.models.MLP([1.0, 0.5], fl.models.MLPConfig(features=2, width=4, depth=1))
    net.save_pretrained(tmp_path / "net")
    rewritten(tmp_path / "net", lambda description: None)
    fl.models.MLP.from_pretrained(tmp_path / "net")
    rewritten(tmp_path / "net", change)
    with pytest.raises(ValueError, match=message):
        fl.models.MLP.from_pretrained(tmp_path / "net")


def test_a_network_of_many_blocks_is_refused_before_it_is_made(tmp_path: Path) -> None:
    net = fl.models.ConvScore([1.0, 0.5], fl.models.ConvConfig(widths=(2,), patch=1))
    net.save_pretrained(tmp_path / "net")
    rewritten(tmp_path / "net", lambda description: description["config"].update(blocks=10**9))
    with pytest.raises(ValueError, match="1000000000 layers"):
        fl.models.ConvScore.from_pretrained(tmp_path / "net")


NETS = {
    "MLP": lambda: fl.models.MLP([1.0, 0.5], fl.models.MLPConfig(features=3, width=5, depth=2)),
    "ConvScore": lambda: fl.models.ConvScore([1.0, 0.5], fl.models.ConvConfig(widths=(4, 6))),
    "NCSN": ncsn,
    "NCSNv2": lambda: fl.models.NCSNv2([1.0, 0.5], fl.models.NCSNv2Config(channels=1, width=2)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_shell_has_the_tensors_of_its_network_and_no_memory(name: str) -> None:
    state = torch.get_rng_state()
    empty = shell(NETS[name]).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    net = NETS[name]().state_dict()
    assert {key: (value.shape, value.dtype) for key, value in empty.items()} == {
        key: (value.shape, value.dtype) for key, value in net.items()
    }
    assert all(value.is_meta for value in empty.values())


@pytest.mark.parametrize("name", NETS)
def test_an_unfilled_network_draws_nothing_and_is_its_network_once_it_is_filled(name: str) -> None:
    state = torch.get_rng_state()
    net = unfilled(NETS[name])
    assert torch.equal(torch.get_rng_state(), state)
    whole = NETS[name]()
    net.load_state_dict(whole.state_dict())
    for found, wanted in ((net.named_buffers, whole.named_buffers), (net.named_parameters, whole.named_parameters)):
        values = dict(wanted())
        assert dict(found()).keys() == values.keys()
        assert all(torch.equal(value, values[key]) for key, value in found())
        assert all(value.requires_grad == values[key].requires_grad for key, value in found())


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": "3"},
        {"step": 2**33},
        {"seed": 2**64},
        {"seed": 0.5},
        {"sample_offset": 2**56},
        {"record": []},
        {"telemetry": {"steps": [0], "levels": [0]}},
        {"telemetry": 5},
    ],
    ids=str,
)
def test_the_state_of_a_chain_is_one(tmp_path: Path, change: dict[str, Any]) -> None:
    stopped_chain.save(tmp_path / "chain", fl.ChainState(torch.zeros(2, 3), 1, 7, record={"sampler": "langevin"}))
    rewritten(tmp_path / "chain", lambda description: None)
    assert stopped_chain.load(tmp_path / "chain").seed == 7
    rewritten(tmp_path / "chain", lambda description: description["chain"].update(change))
    with pytest.raises(ValueError, match="is not the state of a chain, or is damaged"):
        stopped_chain.load(tmp_path / "chain")


LINE = {"step": 5, "loss": 1.0, "lr": 1e-3, "gradient_norm": 2.0, "levels": [1.0, None], "samples": [3, 0]}


@pytest.mark.parametrize(
    "line",
    [
        {"step": 10},
        {**LINE, "loss": None},
        {**LINE, "loss": 10**400},
        {**LINE, "levels": 5},
        {**LINE, "levels": [1.0]},
        {**LINE, "levels": [None, None]},
        {**LINE, "samples": [10**400, 0]},
        {**LINE, "step": "10"},
        [],
        5,
    ],
    ids=str,
)
def test_a_line_of_a_log_that_cannot_be_drawn_ends_it(tmp_path: Path, line: object) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (LINE, {**LINE, "step": 10}, line, LINE)))
    assert [each["step"] for each in Log(path, 20).lines] == [5, 10]
    path.write_text(json.dumps(line))
    with pytest.raises(ValueError, match="is not the log of a run"):
        Log(path, 0)
    # As deep as JSON goes.
    path.write_text(json.dumps(LINE) + "\n" + "[" * 10_000)
    assert len(Log(path, 20).lines) == 1


def test_a_state_of_training_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    def small() -> fl.models.MLP:
        return fl.models.MLP([1.0, 0.5], fl.models.MLPConfig(features=2, width=4, depth=1))

    config = TrainConfig(steps=3, batch=2, save_every=1)
    places = Places(tmp_path, resume=True, device="cpu")
    data = Images(torch.rand(4, 2))
    net = train(small, data, config, places)
    newest = tmp_path / "state-0000000003.safetensors"
    intact = newest.read_bytes()
    for change in (
        lambda tensors, description: tensors.pop("net.head.bias"),
        lambda tensors, description: tensors.pop("optimiser.exp_avg.head.bias"),
        lambda tensors, description: tensors.update({"window.device": torch.zeros(1)}),
        lambda tensors, description: tensors.update({"average.head.bias": torch.zeros(1)}),
        lambda tensors, description: tensors.update({"x": torch.zeros(1)}),
        lambda tensors, description: description.update(updates=-1),
        lambda tensors, description: description.pop("updates"),
        lambda tensors, description: description.pop("scaler"),
        lambda tensors, description: description.pop("sigmas"),
        lambda tensors, description: description.pop("stream_version"),
    ):
        tensors, description = container.read(newest)
        change(tensors, description)
        container.write(newest, tensors, description)
        with pytest.raises(ValueError, match=r"start anew in another folder"):
            train(small, data, config, places)
        newest.write_bytes(intact)
    again = train(small, data, config, places)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())


def test_the_ladder_of_a_chain_may_be_long(tmp_path: Path) -> None:
    ladder = [1.0 + 0.1 / (step + 3) for step in range(60_000)]
    state = fl.ChainState(torch.zeros(2, 3), 1, 7, record={"sampler": "annealed", "sigmas": ladder, "epsilon": 0.1})
    stopped_chain.save(tmp_path / "chain", state)
    assert stopped_chain.load(tmp_path / "chain").record == state.record
    tensors, description = container.read(tmp_path / "chain")
    for forged in (torch.ones(2, 2), torch.ones(2), torch.ones(2**20 + 1, dtype=torch.float64)):
        container.write(tmp_path / "chain", {**tensors, "record.sigmas": forged}, description)
        with pytest.raises(ValueError, match="is not the state of a chain"):
            stopped_chain.load(tmp_path / "chain")
    with pytest.raises(ValueError, match="has 1048577 numbers, a file has room for 1048576"):
        stopped_chain.save(
            tmp_path / "chain", fl.ChainState(torch.zeros(2), 1, 7, record={"sigmas": [0.5] * (2**20 + 1)})
        )
