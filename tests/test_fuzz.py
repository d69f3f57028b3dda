"""The fuzzing harness in a short form, with its controls, which must fail."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.long import forgery, fuzz
from tests.long.readers import CONTROLS, READERS, Reader, WrongError, opened

INPUTS = {
    **dict.fromkeys(READERS, 300),
    "container": 1000,
    "training state": 100,
    "published": 40,
    "without digests": 1000,
    "safetensors library": 300,
    "torch.load": 100,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # In memory: what is written there is flushed to the disk, thousands of times.
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=fuzz.MEMORY_FOLDER) as place:
        yield Path(place)


def outcomes(name: str, folder: Path) -> dict[str, Any]:
    return fuzz.fuzz(name, 0, INPUTS[name], 0, folder)


@pytest.mark.parametrize("name", READERS)
def test_every_input_gives_the_right_data_or_the_promised_error(name: str, folder: Path) -> None:
    found = outcomes(name, folder)
    assert found["findings"] == 0, found["shown"]
    assert found["refused"] + found["right"] + found["changed"] == INPUTS[name]
    assert found["right"] > 0
    assert found["refused"] > 0 or name == "generations"  # which falls back on an intact one
    assert found["memory_beyond_the_file"] < fuzz.MEMORY
    if name not in ("training log", "published"):  # which have no digests
        assert found["changed"] == 0


@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "sizes too late"])
def test_a_reader_without_a_check_fails_in_the_same_harness(name: str, folder: Path) -> None:
    assert outcomes(name, folder)["findings"] > 0


def test_memory_that_is_taken_for_a_claim_is_seen(folder: Path) -> None:
    # Input 979 of the control claims 268 MB; the harness is told of a larger claim without taking it.
    reader = opened("sizes too late", folder)
    for number in range(2000):
        deliberate = reader.mutate(random.Random(f"0 sizes too late {number}"))
        header = reader.path.read_bytes()
        if deliberate and str(forgery.NUMBERS[0]).encode() in header:
            return
    pytest.fail("no forged header claims more memory than its file has")


class Wayward(Reader):
    """A reader that does what each of its inputs says."""

    def make(self) -> list[bytes]:
        self.acts = [self.raises, self.lies, self.returns]
        return [b"x"]

    def raises(self) -> None:
        raise KeyError("unforeseen")

    def lies(self) -> str:
        return "wrong"

    def returns(self) -> str:
        return "right"

    def mutate(self, chance: random.Random) -> bool:
        self.act = chance.choice(self.acts)
        return True

    def read(self) -> Any:
        return self.act()

    def judge(self, value: Any, deliberate: bool) -> str:
        if value == "wrong":
            raise WrongError("other data")
        return "right"


def test_errors_that_are_not_promised_and_wrong_data_are_findings(tmp_path: Path) -> None:
    seen = {fuzz._one(Wayward(tmp_path), random.Random(number)) for number in range(30)}
    assert len(seen) == 3
    assert {"right", "other data"} < seen
    assert any("KeyError at test_fuzz.py" in each for each in seen)


def test_inputs_follow_from_their_numbers(folder: Path) -> None:
    def contents(name: str, seed: int) -> list[bytes]:
        torch.rand(1)  # whatever PyTorch's generator is at
        reader, made = opened(name, folder), []
        for number in range(20):
            reader.mutate(random.Random(f"{seed} {name} {number}"))
            made.append(reader.path.read_bytes())
        return made

    for name in ("container", "checkpoint", "record", "training log"):
        assert contents(name, 0) == contents(name, 0) != contents(name, 1)


def test_the_result_tells_of_findings_and_of_controls_that_prove_nothing() -> None:
    clean = {"inputs": 5, "findings": 0, "changed": 0, "shown": []}
    record = {"figure": {"shard": dict(clean), "published": {**clean, "changed": 3}}, "control": {"x": {"findings": 2}}}
    assert fuzz.failures(record) == []
    record["figure"]["shard"].update(findings=1, shown=["shard 3: KeyError"])
    assert fuzz.failures(record) == ["shard: 1 of 5 inputs, such as shard 3: KeyError"]
    record["figure"]["shard"].update(findings=0, changed=1)
    record["control"]["x"]["findings"] = 0
    assert len(fuzz.failures(record)) == 2


def test_a_process_that_dies_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.subprocess, "run", lambda *_, **__: fuzz.subprocess.CompletedProcess([], -11, "", ""))
    found = fuzz.in_a_process("shard", 0, 10, 0, tmp_path)
    assert found["findings"] == 1
    assert "ended with -11" in found["shown"][0]
    assert fuzz.merged([found, {**found, "findings": 0, "shown": []}])["findings"] == 1


def test_the_million_is_shared_out_to_the_last_input() -> None:
    assert sum(fuzz.shares(1_000_000).values()) == 1_000_000


def test_the_result_of_the_long_form_is_clean() -> None:
    path = Path(__file__).parent / "long" / "results" / "fuzz.json"
    record = json.loads(path.read_text())
    assert fuzz.failures(record) == []
    assert record["figure"].keys() == READERS.keys()
    assert record["control"].keys() == CONTROLS.keys()
