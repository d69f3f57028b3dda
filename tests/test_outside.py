"""What comes from outside: environment variables, descriptions in files, a checkout that has lost its link."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path
from typing import Any

import pytest
import torch

import fastlangevin as fl
from fastlangevin import kernels_link, runtime
from fastlangevin.cli import main
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.storage import checkpoint, stopped_chain

# Environment variables.


@pytest.fixture
def choosing() -> Iterator[None]:
    for cached in (runtime._automatic, runtime._cpp, runtime._triton):
        cached.cache_clear()
    yield
    for cached in (runtime._automatic, runtime._cpp, runtime._triton):
        cached.cache_clear()


@pytest.mark.parametrize("value", ["", "  ", " reference "])
def test_an_implementation_of_spaces_is_no_choice(choosing: None, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(runtime, "_load", lambda name, device: None)
    monkeypatch.setenv("FASTLANGEVIN_IMPL", value)
    assert runtime.choose_for("auto", "cpu")[0] == (value.strip() or "cpp")


@pytest.mark.parametrize("value", ["cuda", "Reference", "auto,cpp", "x" * 1000])
def test_an_implementation_of_no_name_is_refused(choosing: None, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FASTLANGEVIN_IMPL", value)
    with pytest.raises(ValueError, match=r"FASTLANGEVIN_IMPL must be one of auto, triton, cpp, .*, got") as caught:
        runtime.choose_for("auto", "cpu")
    assert len(str(caught.value)) < 200


# A checkout without symbolic links.


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choosing: None) -> Path:
    """The package's folder without its kernels, where Python looks for them; ``kernels_link`` says where that is."""
    # Without the finder of an editable install, which knows where the kernels are.
    monkeypatch.setattr(sys, "meta_path", [BuiltinImporter, FrozenImporter, PathFinder])
    monkeypatch.setattr(fl, "__path__", [str(tmp_path)])
    monkeypatch.setattr(kernels_link, "__file__", str(tmp_path / "kernels_link.py"))
    monkeypatch.delattr(fl, "kernels", raising=False)
    for name in [name for name in sys.modules if name.startswith("fastlangevin.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


LOST: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "is not there"),
    "a text file": (lambda path: path.write_text("../kernels"), "is a file where a link should be"),
    "an empty folder": (lambda path: path.mkdir(), "is not there"),
}


@pytest.mark.parametrize("kind", LOST)
def test_without_its_link_a_checkout_runs_the_reference_and_says_why(
    tree: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.delenv("FASTLANGEVIN_IMPL", raising=False)
    make, found = LOST[kind]
    make(tree / "kernels")
    says = [
        "fastlangevin.kernels, are missing",
        str(tree / "kernels"),
        "symbolic links",
        "pip install .",
        "'reference'",
    ]
    for impl in ("cpp", "triton"):
        with pytest.raises(RuntimeError) as caught:
            fl.randn((2, 3), seed=0, impl=impl)
        assert [part for part in says if part not in str(caught.value)] == []
        if kind != "an empty folder":
            assert found in str(caught.value)
    assert torch.equal(fl.randn((2, 3), seed=0), fl.randn((2, 3), seed=0, impl="reference"))
    assert any("impl='auto' uses the reference" in message and says[0] in message for message in caplog.messages)


# Descriptions in files that were sealed with anything in them.

ANYTHING: list[Any] = [[], [1, 2], 5, -1.5, "text", True, {"a": {}}, {"shape": [1, 8, 8]}]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def sample(*arguments: str) -> int:
    fixed = ["sample", "--checkpoint", "net", "--n", "1", "--device", "cpu", "--impl", "reference", "--quiet"]
    return main([*fixed, *arguments])


GOOD: dict[str, Any] = {"data": {"shape": [1, 4, 4]}, "sampling": {"epsilon": 1e-3, "steps_per_level": 1}}
PLACES = [
    ("data",),
    ("sampling",),
    ("training",),
    ("training", "augment"),
    ("data", "shape"),
    ("data", "logit"),
    ("sampling", "epsilon"),
    ("sampling", "steps_per_level"),
    ("sampling", "init"),
]


def changed(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(place) == 1:
        return {**GOOD, place[0]: value}
    return {**GOOD, place[0]: {**GOOD.get(place[0], {}), place[1]: value}}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(place))
def test_a_description_of_any_shape_is_read_or_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], place: tuple[str, ...]
) -> None:
    net = ConvScore([1.0, 0.5], ConvConfig(widths=(2,), patch=1, blocks=1))
    refused = 0
    for value in [*ANYTHING, [0, 4, 4], [1, 4], [1, 4, True], [1, 4, 4.5], ["1", 4, 4], 10**4000]:
        checkpoint.save("net", net, metadata=changed(place, value))
        status = sample()
        out, err = capsys.readouterr()
        assert status in (0, 2)
        if status:
            refused += 1
            (line,) = err.splitlines()
            assert line.startswith("fastlangevin sample: error: ")
            assert len(line) < 400
            names = (place[-1], "samples of shape", "network", "logit", "names no epsilon")
            assert any(name in line for name in names), line
            assert "object has no attribute" not in line
        else:
            assert "1 samples in" in out
        for path in folder.glob("*.chain*"):
            path.unlink()
    assert refused >= 3
    checkpoint.save("net", net, metadata=GOOD)
    assert sample() == 0


@pytest.mark.parametrize("value", ANYTHING, ids=str)
def test_a_state_with_any_record_of_its_run_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    checkpoint.save("net", ConvScore([1.0, 0.5], ConvConfig(widths=(2,), patch=1, blocks=1)), metadata=GOOD)
    for seed in (0, torch.zeros(1, dtype=torch.int64)):
        state = fl.ChainState(torch.zeros(1, 1, 4, 4), 1, seed, record={"sampler": "annealed_langevin", "run": value})
        stopped_chain.save("samples.png.chain", state)
        assert sample("--resume") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "samples.png.chain" in line
    assert os.path.exists("samples.png.chain")
