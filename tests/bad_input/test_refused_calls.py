"""What a call that is refused must not do, beyond the table of bad calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from call_snapshot import files_in
from patience import HUNG
from well_formed_calls import CALLS, Arguments, chain, conv, mlp, saved

from fastlangevin.storage import checkpoint, stopped_chain

SEEDLESS = [
    ("step", {"draw": -1}, ValueError),
    ("step_", {"purpose": 256}, ValueError),
    ("step", {"sample_ids": [0]}, ValueError),
    ("randn", {"draw": 2**32}, ValueError),
    ("randn", {"purpose": 256}, ValueError),
    ("rand", {"sample_ids": [0]}, ValueError),
    ("annealed_langevin", {"init": "zeros"}, ValueError),
    ("annealed_langevin", {"dtype": torch.int64}, TypeError),
    ("langevin", {"steps": -1}, ValueError),
    ("dsm_loss", {"labels": torch.tensor([0, 5])}, ValueError),
    ("dsm_loss", {"step": -1}, ValueError),
]


@pytest.mark.parametrize(
    ("call", "bad", "error"), SEEDLESS, ids=[f"{call}-{next(iter(bad))}" for call, bad, _ in SEEDLESS]
)
def test_a_refused_call_without_a_seed_draws_none_from_the_global_generator(
    call: str, bad: Arguments, error: type[Exception], tmp_path: Path
) -> None:
    function, make = CALLS[call]
    arguments = {**make(tmp_path), "seed": None}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(error):
        function(**{**arguments, **bad})
    assert torch.equal(torch.get_rng_state(), before)
    function(**arguments)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["checkpoint", "chain"])
def test_every_flipped_byte_is_found_or_harmless(kind: str, tmp_path: Path) -> None:
    call, path = ("checkpoint.load", "net.safetensors") if kind == "checkpoint" else ("chains.load", "run.chain")
    load, make = CALLS[call]
    make(tmp_path)
    content = (tmp_path / path).read_bytes()

    def contents(loaded: Any) -> object:
        if kind == "chain":
            return [bytes(loaded.x.numpy()), loaded.x.dtype, loaded.x.shape, loaded.step, loaded.seed, loaded.record]
        weights = {name: (bytes(value.numpy()), value.shape) for name, value in loaded.net.state_dict().items()}
        return [weights, loaded.sigmas.tolist(), loaded.metadata, loaded.net.config, type(loaded.net)]

    expected = contents(load(tmp_path / path))
    found = 0
    for position in range(0, len(content), max(1, len(content) // 300)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            loaded = load(tmp_path / "damaged")
        except ValueError:
            found += 1
        else:
            assert contents(loaded) == expected, f"byte {position}: {bytes(content[position - 20 : position + 20])!r}"
    assert found > 200


def test_a_save_that_fails_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, state = saved(tmp_path, mlp()), tmp_path / "run.chain"
    stopped_chain.save(state, chain())
    before = files_in(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RuntimeError, match=re.escape(f"cannot write {net}: No space left on device")):
        checkpoint.save(net, conv())
    with pytest.raises(OSError, match="No space left on device"):
        stopped_chain.save(state, replace(chain(), step=2))
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("kind", ["checkpoint", "chain"])
def test_a_save_never_replaces_what_is_not_a_file(kind: str, tmp_path: Path) -> None:
    # A rename onto /dev/null by root would take it away from the whole machine; a pipe stands for it here.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises((RuntimeError, OSError), match="pipe"):
        checkpoint.save(pipe, mlp()) if kind == "checkpoint" else stopped_chain.save(pipe, chain())
    assert pipe.is_fifo()


def test_impl_triton_on_a_cpu_tensor_is_refused_without_the_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, fastlangevin as fl\n"
        "x = torch.zeros(2, 3)\n"
        "for call in (\n"
        "    lambda: fl.step_(x, torch.ones(2, 3), a=1.0, b=1.0, seed=0, impl='triton'),\n"
        "    lambda: fl.randn((2, 3), seed=0, impl='triton'),\n"
        "):\n"
        "    try:\n"
        "        call()\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "assert not x.any()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    expected = r"Triton is not installed|Triton runs on GPUs; for a CPU tensor use impl='cpp' or 'reference'"
    assert all(re.match(expected, line) for line in lines)
