"""The command line: help, a reader that leaves, and what training on logits tells sampling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import HUNG

from fastlangevin.cli import main
from fastlangevin.storage import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--help"], "sample train"),
        (
            ["sample", "--help"],
            "--checkpoint --n --seed --out --trajectory --resume --epsilon --steps-per-level --corrector "
            "--sample-offset --device --impl --digest --quiet --shards --shard-size --batch --remake-damaged",
        ),
        (["train", "--help"], "--data --out --steps --batch --lr --ema --seed --threads"),
    ],
    ids=["top", "sample", "train"],
)
def test_help_names_every_option(capsys: pytest.CaptureFixture[str], arguments: list[str], options: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("usage: fastlangevin")
    assert [option for option in options.split() if option not in printed] == []
    assert "==SUPPRESS==" not in printed


# argparse says nothing of a help that nobody reads.
@pytest.mark.long
@pytest.mark.parametrize(("arguments", "status"), [(["info"], 141), (["train", "--help"], 0)])
def test_it_ends_quietly_where_the_reader_of_its_output_leaves(arguments: list[str], status: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fastlangevin", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=HUNG, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, "")


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from fastlangevin.cli import info

    def broken(_: object) -> int:
        raise BrokenPipeError(32, "a worker has gone")

    monkeypatch.setattr(info, "run", broken)
    assert main(["info"]) == 2
    assert "error: [Errno 32] a worker has gone" in capsys.readouterr().err


def test_training_on_logits_says_so_and_starts_its_samples_from_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "l.safetensors"
    small = ["--steps", "1", "--batch", "2", "--widths", "4", "--sigma-1", "20", "--device", "cpu", "--quiet"]
    assert main(["train", *small, "--logit", "1e-6", "--out", str(out)]) == 0
    metadata = checkpoint.load(out).metadata
    assert metadata["data"]["logit"] == 1e-6
    assert metadata["sampling"]["init"] == "normal"
    assert main(["train", *small, "--out", str(tmp_path / "n.safetensors")]) == 0
    metadata = checkpoint.load(tmp_path / "n.safetensors").metadata
    assert "logit" not in metadata["data"]
    assert metadata["sampling"]["init"] == "uniform"
