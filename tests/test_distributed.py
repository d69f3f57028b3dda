"""Runs over several processes: the same samples at the same addresses, whatever the number of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import HUNG

from fastlangevin.storage.generations import Generations

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
# Runs in each process: trains, and keeps what its network was given and the losses of each step.
PROGRAM = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.append(sys.argv[2])
from tests.long import small_run
from fastlangevin.training import Places, TrainConfig, train

out, accumulate = Path(sys.argv[1]), int(sys.argv[3])
seen, losses = [], []

def build():
    net = small_run.build()
    net.register_forward_pre_hook(lambda _, given: seen.append([each.clone() for each in given]))
    return net

config = TrainConfig(steps=3, batch=16, lr=1e-3, warmup=0, seed=5, accumulate=accumulate, log_every=2, save_every=2)
net = train(build, small_run.images(), config, Places(out, device="cpu"), callback=lambda _, loss: losses.append(loss))
rank = int(os.environ.get("RANK", 0))
torch.save((seen, losses, dict(net.named_parameters())), out / f"rank-{rank}.pt")
"""


def launch(folder, world, accumulate=1):
    folder.mkdir()
    program = folder / "program.py"
    program.write_text(PROGRAM)
    options = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    done = subprocess.run(
        [sys.executable, *options, str(program), str(folder), str(ROOT), str(accumulate)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = launch(folder, 1)[0]
    tensors = Generations(folder, "state").load(step=2).tensors
    return *done, {name: tensors[f"average.{name}"] for name in done[2]}


def apart(one, other):
    return torch.cat([(one[name] - other[name]).flatten() for name in other]).norm()


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (4, 2)])
def test_any_number_of_processes_sees_the_same_samples_and_noise(alone, tmp_path, world, accumulate):
    *alone, without_the_last_update = alone
    ranks = launch(tmp_path / "run", world, accumulate)
    seen, losses, weights = alone
    for step in range(3):
        parts = [rank[0][step * accumulate + part] for rank in ranks for part in range(accumulate)]
        for index in range(2):  # perturbed inputs and labels
            assert torch.equal(torch.cat([part[index] for part in parts]), seen[step][index])
    assert not torch.equal(seen[0][0], seen[1][0])
    for _, others, their_weights in ranks:
        # The loss is a sum of 16 fp32 values in another order; later steps follow the weights' rounding.
        torch.testing.assert_close(torch.tensor(others), torch.tensor(losses), rtol=1e-5, atol=0)
        assert all(torch.equal(their_weights[name], ranks[0][2][name]) for name in weights)
        # Adam's first steps are of the size of lr for any gradient, so that rounding shows where the gradient is zero,
        # in a few weights: in the norm of all it is far below what one update less would make.
        assert apart(their_weights, weights) < apart(without_the_last_update, weights) / 100


def test_one_process_writes_what_one_alone_would(alone, tmp_path):
    launch(tmp_path / "run", 2)
    assert sorted(path.name for path in (tmp_path / "run").glob("state-*")) == [
        "state-0000000002.safetensors",
        "state-0000000003.safetensors",
    ]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]
    assert [sum(line["samples"]) for line in lines] == [32, 16]
    _, losses, *_ = alone
    assert lines[0]["loss"] == pytest.approx(sum(losses[:2]) / 2, rel=1e-5)
