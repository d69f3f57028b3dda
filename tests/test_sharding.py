"""Sharded sampling over real processes: torchrun with several worlds, kill -9, the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fastlangevin as fl
from fastlangevin import shards
from fastlangevin.cli import main
from fastlangevin.models import MLP, ConvConfig, ConvScore, MLPConfig
from fastlangevin.storage import checkpoint
from tests.long import sharding

ROOT = Path(__file__).resolve().parents[1]
# Runs in each process. Every process waits in its first evaluation for the others to be in theirs, so that all of them
# hold a shard by then: else a quick one could do all the work, and the test would say nothing of the others.
PROGRAM = """
import sys
from functools import partial
from pathlib import Path
import torch
from torch import distributed
torch.set_num_threads(1)
sys.path.append(sys.argv[2])
from tests.long import sharding
from fastlangevin import shards
from unittest import mock

distributed.init_process_group("gloo")
rank = distributed.get_rank()

class Meeting:
    def __init__(self, group):
        self.group = group
    def __call__(self, x, labels):
        if self.group is not None:
            distributed.barrier(self.group)
            self.group = None
        return sharding.score(x, labels)

def fill(name, group, **place):
    outcome = shards.sample(Meeting(group), sharding.SIGMAS, folder / name, shape=(sharding.N, 3), network="gaussian",
                            shard_size=sharding.SHARD, batch=sharding.BATCH, **sharding.CHAIN, **place)
    (folder / f"{name}-{rank}").write_text(f"{outcome.drawn} {outcome.complete}")

folder = Path(sys.argv[1])
pair = distributed.new_group([0, 1])
fill("four", distributed.group.WORLD)
if rank < 2:
    fill("two", pair, rank=rank, world=2)
with mock.patch("fastlangevin.shards.batches.annealed_langevin", partial(sharding._other_seed, rank)):
    fill("by_rank", distributed.group.WORLD)
distributed.destroy_process_group()
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def launch(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=1200,  # a last resort
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def torchrun(world: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    return launch("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", world, *arguments)


# Worlds.


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "program.py").write_text(PROGRAM)
    torchrun(4, folder / "program.py", folder, ROOT)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("name", "world"), [("two", 2), ("four", 4)])
def test_any_number_of_processes_gives_the_samples_of_one(worlds: Path, tmp_path: Path, name: str, world: int) -> None:
    drawn = [(worlds / f"{name}-{rank}").read_text().split() for rank in range(world)]
    assert all(int(count) > 0 for count, _ in drawn)
    assert sum(int(count) for count, _ in drawn) == sharding.N
    assert drawn[0][1] == "True"
    sharding.fill(tmp_path / "alone", tmp_path / "log", 0, 1, slowness=0)
    assert shards.digest(worlds / name) == shards.digest(tmp_path / "alone") == sharding.expected()


@pytest.mark.long
def test_processes_that_add_their_rank_to_the_seed_are_found_by_the_same_comparison(worlds: Path) -> None:
    assert int((worlds / "by_rank-1").read_text().split()[0]) > 0
    assert shards.digest(worlds / "by_rank") != sharding.expected()


# Kills: the harness in a short form.


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    # A process of its own: the harness forks, and this one has threads.
    out = tmp_path_factory.mktemp("sharding") / "record.json"
    launch("-m", "tests.long.sharding", "--kills", 8, "--json", out, folder=ROOT)
    loaded: dict[str, Any] = json.loads(out.read_text())
    return loaded


@pytest.mark.long
def test_one_to_eight_processes_fill_a_folder_with_the_same_bits(record: dict[str, Any]) -> None:
    assert record["worlds"] == {"worlds": 4, "other_bits": 0}


@pytest.mark.long
def test_no_kill_changes_a_bit_or_costs_more_than_a_batch(record: dict[str, Any]) -> None:
    killed = record["random_kills"]
    assert killed["kills"] == 8
    assert (killed["other_bits"], killed["with_strangers"]) == (0, 0)
    assert 0 <= killed["evaluations_repeated"] <= killed["bound"]


def test_a_kill_at_a_chosen_evaluation_costs_what_its_batch_had_cost(record: dict[str, Any]) -> None:
    chosen = record["chosen_kill"]
    assert chosen["repeated"] == chosen["expected"] < chosen["repeated_without_batches"]


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("worlds", {"other_bits": 1}, "1 of the numbers of processes"),
        ("random_kills", {"other_bits": 1}, "1 of .* folders: other_bits"),
        ("random_kills", {"with_strangers": 2}, "2 of .* folders: with_strangers"),
        ("random_kills", {"evaluations_repeated": 10**6}, "1000000 evaluations repeated"),
        ("random_kills", {"evaluations_repeated": -1}, "fewer evaluations"),
        ("chosen_kill", {"repeated": 9}, "chosen kill repeated 9"),
        ("chosen_kill", {"repeated_without_batches": 8}, "kill_without_batches repeated 8"),
        ("seeding_by_rank", {"same_bits": True}, "seeding by rank"),
    ],
)
def test_the_harness_tells_what_went_wrong(
    record: dict[str, Any], part: str, change: dict[str, Any], says: str
) -> None:
    changed = json.loads(json.dumps(record))
    assert sharding.failures(changed) == []
    changed[part].update(change)
    (line,) = sharding.failures(changed)
    assert re.search(says, line)


# The command line.


def hexadecimal(printed: str) -> str:
    (digest,) = re.findall(r"^SHA-256 of the samples: ([0-9a-f]{64})$", printed, re.MULTILINE)
    return str(digest)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that learnt nothing, the score of a Gaussian element by element, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    made = ConvScore([1.0, 0.1], ConvConfig(widths=(4,), blocks=1))
    metadata = {"data": {"shape": [1, 8, 8]}, "sampling": {"epsilon": 2e-3, "steps_per_level": 3}}
    checkpoint.save("net", made, metadata=metadata)
    return tmp_path


def command(*arguments: object) -> int:
    fixed = ("sample", "--checkpoint", "net", "--device", "cpu", "--impl", "reference", "--n", 10)
    return main([str(each) for each in (*fixed, *arguments)])


@pytest.mark.long
def test_torchrun_with_the_shipped_network_prints_the_digest_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # With one batch size: a convolution may add in another order for another one. Torchrun takes --n for its own.
    fixed = ["sample", "--n", 24, "--steps-per-level", 1, "--shard-size", 4, "--batch", 2, "--device", "cpu"]
    fixed += ["--impl", "reference", "--quiet", "--digest"]
    monkeypatch.chdir(tmp_path)
    assert main([str(each) for each in [*fixed, "--shards", "alone", "--out", "alone.png"]]) == 0
    alone = hexadecimal(capfd.readouterr().out)
    fixed[1] = "--samples"
    done = torchrun(2, "-m", "fastlangevin", *fixed, "--out", "two.png")
    assert hexadecimal(done.stdout) == alone == shards.digest(tmp_path / "two.png.shards")
    assert (tmp_path / "two.png").read_bytes() == (tmp_path / "alone.png").read_bytes()
    assert main([str(each) for each in [*fixed, "--shards", "other", "--seed", 1]]) == 0
    assert hexadecimal(capfd.readouterr().out) != alone


def test_a_sharded_run_prints_and_draws_what_a_plain_one_does(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--digest", "--out", "plain.png", "--quiet") == 0
    plain = capsys.readouterr()
    assert command("--digest", "--shards", "run", "--shard-size", 4, "--batch", 3) == 0
    sharded = capsys.readouterr()
    assert hexadecimal(sharded.out) == hexadecimal(plain.out)
    assert "10 samples after" in sharded.out
    assert "10 of them by this process" in sharded.out
    assert "10/10" in sharded.err
    assert Path("samples.png").read_bytes() == Path("plain.png").read_bytes()
    assert command("--digest", "--shards", "run", "--shard-size", 4, "--resume", "--quiet") == 0
    again = capsys.readouterr()
    assert hexadecimal(again.out) == hexadecimal(plain.out)
    assert " 0 of them by this process" in again.out


def test_of_several_processes_one_writes_the_picture(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert command("--shard-size", 5) == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(os.listdir()) == ["net", "samples.png.shards"]
    monkeypatch.setenv("RANK", "0")
    assert command("--shard-size", 5, "--quiet") == 0
    assert " 0 of them by this process" in capsys.readouterr().out
    assert Path("samples.png").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_the_same_command_goes_on(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, status: int
) -> None:
    real, calls = ConvScore.forward, []

    def forward(self: ConvScore, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        if len(calls) == 10:  # in the second batch, of 7 evaluations each
            signal.raise_signal(number)
        return real(self, x, labels)

    monkeypatch.setattr(ConvScore, "forward", forward)
    fixed = ("--shards", "run", "--batch", 4, "--quiet")
    assert command(*fixed) == status
    assert "the same command goes on" in capsys.readouterr().out
    assert not Path("samples.png").exists()
    assert command(*fixed, "--digest") == 0
    printed = capsys.readouterr().out
    assert " 6 of them by this process" in printed
    loaded = checkpoint.load("net")
    whole = fl.annealed_langevin(
        loaded.net, loaded.sigmas, shape=(10, 1, 8, 8), epsilon=2e-3, steps_per_level=3, denoise=True, seed=0
    )
    assert hexadecimal(printed) == shards.digest_of(whole)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--n", 0], ["--n must be at least 1", "0"]),
        (["--n", -3], ["--n must be at least 1", "-3"]),
        (["--shard-size", 0], ["shard_size", "0"]),
        (["--batch", 0], ["batch must be from 1", "0"]),
        (["--shards", "net"], ["net", "not a folder"]),
        (["--shards", "full"], ["full", "other things", "thing"]),
        (["--shards", "missing/run"], ["missing", "does not exist", "create it first"]),
        (["--trajectory"], ["--trajectory", "without --shards"]),
        (["--seed", 1, "--shards", "run"], ["seed was 0 and is now 1", "Nothing was changed"]),
        (["--n", 9, "--shards", "run"], ["n was 10 and is now 9"]),
        (["--epsilon", 1e-3, "--shards", "run"], ["epsilon was 0.002 and is now 0.001"]),
        (["--checkpoint", "other", "--shards", "run"], ["network was", "is now", "sigmas[1] was 0.1", "0.2"]),
        (["--checkpoint", "flat", "--shards", "run"], ["not pictures"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if str(value[0]).startswith("--") else None,
)
def test_a_bad_call_is_one_line_on_stderr_and_changes_nothing(
    net: Path, capsys: pytest.CaptureFixture[str], arguments: list[object], says: list[str]
) -> None:
    Path("full").mkdir()
    Path("full/thing").write_text("mine")
    metadata = checkpoint.load("net").metadata
    checkpoint.save("other", ConvScore([1.0, 0.2], ConvConfig(widths=(4,), blocks=1)), metadata=metadata)
    flat = MLP([1.0, 0.1], MLPConfig(features=2, width=4, depth=1))
    checkpoint.save("flat", flat, metadata={**metadata, "data": {"shape": [2]}})
    if "run" in arguments:
        assert command("--shards", "run", "--quiet") == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in net.rglob("*") if path.is_file()}
    assert command("--shards", "new", "--quiet", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastlangevin sample: error: ")
    assert [part for part in says if part not in line] == []
    assert {path: path.read_bytes() for path in net.rglob("*") if path.is_file()} == before
    assert not Path("new").exists()
