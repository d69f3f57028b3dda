"""What could not be built is tried once in a process, until something changes or the user asks."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastlangevin import ops, runtime
from fastlangevin.cli import main
from fastlangevin.kernels.cpp import build as builder
from fastlangevin.kernels.cpp import native
from fastlangevin.selftest import checks, running

COMPILER = """#!/bin/sh
echo x >> {calls}
case "$*" in *--version*) echo "a compiler that fails"; exit 0;; esac
echo "sums.cpp:7:1: error: such is life" >&2
exit 1
"""


@pytest.fixture
def forgotten() -> Iterator[None]:
    def forget() -> None:
        runtime._cpp.cache_clear()
        runtime.retry()

    forget()
    yield
    forget()


@pytest.fixture
def calls(forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process without the library, whose compiler fails; a line of this file is a call of the compiler."""
    if os.name != "posix":
        pytest.skip("the compiler is a shell script")
    path = tmp_path / "calls"
    (tmp_path / "c++").write_text(COMPILER.format(calls=shlex.quote(str(path))))
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTLANGEVIN_NO_BUILD", raising=False)
    monkeypatch.delenv("FASTLANGEVIN_IMPL", raising=False)
    monkeypatch.setattr(native, "_library", None)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "nowhere" / "native.py"))
    monkeypatch.setattr(builder, "find_ninja", lambda: None)  # one call of the compiler for a build
    return path


def attempts(calls: Path) -> int:
    """Builds: each asks for the version first."""
    return len(calls.read_text().splitlines()) // 2 if calls.exists() else 0


def refusal() -> str:
    with pytest.raises(RuntimeError, match="C\\+\\+ kernels cannot be used") as caught:
        ops.randn((1,), seed=0, impl="cpp")
    return str(caught.value)


def test_a_failed_build_is_tried_once(calls: Path) -> None:
    first = refusal()
    assert attempts(calls) == 1
    assert "sums.cpp:7:1: error: such is life" in first
    for again in (refusal(), runtime.explain("cpu")["cpp"]):
        assert again.startswith(first)
        assert "runtime.retry()" in again
    assert torch.equal(ops.randn((3,), seed=0), ops.randn((3,), seed=0, impl="reference"))
    assert attempts(calls) == 1


def test_the_selftest_and_info_build_once(
    calls: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        running, "CHECKS", {f"check {n}": lambda device: str(checks._variants(device)) for n in range(3)}
    )
    assert all(outcome.passed and "cpp" not in outcome.text for outcome in running.run([torch.device("cpu")]))
    assert attempts(calls) == 1
    assert main(["info"]) == 0
    assert "error: such is life" in capsys.readouterr().out
    assert attempts(calls) == 1


def test_threads_that_ask_at_once_build_once(calls: Path) -> None:
    threads = [threading.Thread(target=runtime.explain, args=("cpu",)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert attempts(calls) == 1


def test_it_is_tried_again_when_asked_for(calls: Path) -> None:
    first = refusal()
    runtime.retry()
    assert refusal() == first
    assert attempts(calls) == 2


def change_the_compiler(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = calls.with_name("c++")
    script.write_text(script.read_text() + "\n# mended\n")


def change_the_choice(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(calls.with_name("c++"), calls.with_name("other"))
    monkeypatch.setenv("CXX", str(calls.with_name("other")))


def change_the_sources(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(builder.SOURCES, calls.with_name("csrc"))
    monkeypatch.setattr(builder, "SOURCES", calls.with_name("csrc"))


def change_the_folder(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", str(calls.with_name("elsewhere")))


@pytest.mark.parametrize("change", [change_the_compiler, change_the_choice, change_the_sources, change_the_folder])
def test_it_is_tried_again_when_something_has_changed(change, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal()
    change(calls, monkeypatch)
    refusal()
    assert attempts(calls) == 2


def test_auto_takes_the_library_once_it_is_there(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.choose_for("auto", "cpu")[0] == "reference"
    monkeypatch.setattr(native, "load", lambda: None)
    runtime._failures.clear()
    assert runtime.explain("cpu")["cpp"] == "available"
    assert runtime.choose_for("auto", "cpu")[0] == "reference"  # the implementation does not change in between
    runtime.retry()
    assert runtime.choose_for("auto", "cpu")[0] == "cpp"


def test_a_failed_probe_of_triton_is_tried_once(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from fastlangevin.kernels.triton import randn

    tried = []

    def fails(*arguments: object, **options: object) -> None:
        tried.append(1)
        raise RuntimeError("no Python.h")

    monkeypatch.setattr(randn, "randn", fails)
    monkeypatch.setattr(runtime, "_interpreting", lambda: False)
    runtime._triton.cache_clear()
    messages = [runtime.explain("meta")["triton"] for _ in range(3)]
    assert len(tried) == 1
    assert all("no Python.h" in each for each in messages)
    runtime.retry()
    assert "no Python.h" in runtime.explain("meta")["triton"]
    assert len(tried) == 2


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="loads the library")
def test_circumstances_stay_the_same() -> None:
    assert builder.circumstances() == builder.circumstances()
