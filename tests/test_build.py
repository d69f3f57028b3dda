"""Building the C++ library: with ninja and without, without a compiler, at once from many processes, in odd caches."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastlangevin.kernels.cpp import build as builder
from fastlangevin.kernels.cpp import native
from fastlangevin.kernels.cpp.cache import while_locked
from tests.long.building import at_once, control, environment, finished, kill, portable_sources, start

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, builder.COMPILERS)), reason="builds need a C++ compiler: c++, g++ or clang++"
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The C++ sources, made to offer the portable kernels alone."""
    return portable_sources(tmp_path / "csrc")


@pytest.mark.long
@pytest.mark.parametrize("use_ninja", [True, False])
def test_build(use_ninja: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if use_ninja and builder.find_ninja() is None:
        pytest.skip("no ninja")
    monkeypatch.setattr(builder, "FLAGS", tuple(flag.replace("-O3", "-O0") for flag in builder.FLAGS))
    folder = tmp_path / "a folder: with $odd (letters)"
    path = builder.build(folder, use_ninja=use_ninja)
    assert path == folder / builder.LIBRARY
    assert [each.name for each in folder.iterdir()] == [builder.LIBRARY]
    assert builder.is_current(path)
    library = ctypes.CDLL(str(path))
    library.fl_source_hash.restype = ctypes.c_char_p
    assert library.fl_source_hash().decode() == builder.source_hash()


def test_no_contraction_and_no_fast_math() -> None:
    flags = [*builder.FLAGS, *(flag for each in builder.X86.values() for flag in each)]
    assert "-ffp-contract=off" in flags
    # -mfma is for the products that ask for it by name: those of networks.
    assert not {"-ffast-math", "-Ofast", "-march=native", "-ffp-contract=fast"} & set(flags)


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(builder.BuildError, match=r"no C\+\+ compiler was found.*install"):
        builder.build(tmp_path / "out")
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(RuntimeError, match="'no-such-compiler' is not an executable"):
        builder.build(tmp_path / "out")


def test_failing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false = shutil.which("false")
    assert false is not None
    monkeypatch.setenv("CXX", false)
    for use_ninja in (True, False):
        with pytest.raises(builder.BuildError, match="failed with status"):
            builder.build(tmp_path / "out", use_ninja=use_ninja)
    assert list((tmp_path / "out").iterdir()) == []


# Says much where it succeeds, and where it fails the reason and then more than a message has room for.
FAILING = """#!/bin/sh
case "$*" in
*{failing}*)
    for line in $(seq {before}); do echo "in file included from {padding}$line"; done
    echo "{failing}:7:1: error: such is life"
    for line in $(seq {after}); do echo "note: {padding}$line"; done
    exit 1;;
esac
for word in "$@"; do last=$word; done
echo "{failed}" > "$last"
"""


@pytest.mark.parametrize("use_ninja", [True, False])
@pytest.mark.parametrize("failing", ["dsm.cpp", "mlp_chain.cpp", "pool.cpp", "library.cpp", "-shared"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (500, 500)])
def test_the_message_of_a_failed_build_has_the_error(
    use_ninja: bool, failing: str, before: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use_ninja and builder.find_ninja() is None:
        pytest.skip("no ninja")
    compiler = tmp_path / "c++"
    compiler.write_text(
        FAILING.format(failing=failing, before=before, after=after, padding="x" * 90, failed="an object")
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(builder, "instruction_sets", lambda machine=None: {"portable": ()})
    with pytest.raises(builder.BuildError) as caught:
        builder.build(tmp_path / "out", use_ninja=use_ninja)
    message = str(caught.value)
    lines = message.splitlines()
    at = lines.index(f"{failing}:7:1: error: such is life")
    assert len(message) < 10_000
    if before:
        assert lines[at - 2].startswith("in file included from x")
    if after:
        assert lines[at + 4].startswith("note: x")
    # The command once, and no other's.
    assert sum(str(compiler) in line for line in lines) == 1
    assert sum(line.count(" -c ") for line in lines) == (failing != "-shared")


def test_of_long_lines_and_many_errors_the_first_are_shown() -> None:
    lines = [f"{'y' * 50} {number}: error: {'z' * 5000}" for number in range(1000)]
    excerpt = builder._excerpt("\n".join(lines))
    assert excerpt.startswith(f"{'y' * 50} 0: error: zzz")
    assert len(excerpt) <= builder.EXCERPT
    assert builder._excerpt("x\n" * 10_000).endswith("x")
    assert builder._excerpt("[1/3] fine\nwhat\nninja: build stopped: subcommand failed.\n") == "what"
    assert builder._excerpt("") == ""


def test_hash_follows_the_sources(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "SOURCES", sources)
    before = builder.source_hash()
    (sources / "normal.h").write_text((sources / "normal.h").read_text() + "\n")
    assert builder.source_hash() != before
    assert len(before) == 32


@pytest.mark.long
def test_eight_first_builds_at_once(sources: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert at_once(sources, cache, 8) == []
    folders = [each for each in cache.iterdir() if each.is_dir()]
    assert len(folders) == 1

    # FASTLANGEVIN_NO_BUILD forbids libraries that were built here, too.
    code, _, err = finished(start(sources, environment(cache, FASTLANGEVIN_NO_BUILD="1")))
    assert code == 1
    assert "FASTLANGEVIN_NO_BUILD forbids" in err

    # The lock file of a build that was killed is just a file.
    shutil.rmtree(folders[0])
    lock = next(each for each in cache.iterdir() if each.suffix == ".lock")
    lock.write_text("12345")
    code, _, err = finished(start(sources, environment(cache)))
    assert code == 0, err
    assert "waiting" not in err

    # A lock that somebody holds is waited for, but not for ever if there is no sign of life.
    shutil.rmtree(folders[0])
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = finished(start(sources, environment(cache), lock_seconds=0.5))
    assert code == 1
    assert "waiting for another process" in err
    assert "another process has held" in err
    assert "FASTLANGEVIN_CACHE_DIR" in err


def test_a_killed_build_stands_in_nobodys_way(sources: Path, tmp_path: Path) -> None:
    found = kill(sources, tmp_path / "cache", 0.0, group=False)  # its compilers live on, and write
    assert found["killed"]
    assert found["error"] is None
    (folder,) = (each for each in (tmp_path / "cache").iterdir() if each.is_dir())
    assert [each.name for each in folder.iterdir()] == [builder.LIBRARY], "what the killed one left is removed"


def test_only_what_builds_leave_is_swept(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (tmp_path / "folder" / ".build-killed" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / ".build-killed" / "deep" / "sums.o").write_text("")
    (tmp_path / "folder" / ".build-digest").write_text("")
    (tmp_path / "folder" / builder.LIBRARY).write_text("")
    (tmp_path / "folder" / "build-mine").mkdir()
    other.mkdir()
    (other / "kept").write_text("")
    (tmp_path / "folder" / ".build-link").symlink_to(other)
    builder.sweep(tmp_path / "folder")
    assert sorted(each.name for each in (tmp_path / "folder").iterdir()) == ["build-mine", builder.LIBRARY]
    assert (other / "kept").exists()


@pytest.mark.parametrize("number", [None, errno.ENOLCK, errno.ENOSYS])
def test_only_the_holder_of_a_lock_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    def refuse(*_: object) -> None:
        assert number is not None
        raise OSError(number, os.strerror(number))

    if number is not None:
        monkeypatch.setattr(fcntl, "flock", refuse)
    done: list[str] = []
    while_locked(tmp_path / "lock", lambda: done.append("work"), lambda: done.append("clean"))
    assert done == (["clean", "work"] if number is None else ["work"])


@pytest.mark.long
def test_a_lock_that_a_killed_build_leaves_would_be_waited_for(tmp_path: Path) -> None:
    outcome = control(tmp_path, 1.5)
    if outcome == "goes on":
        pytest.skip("the lock of this PyTorch's extensions ends with its holder")
    assert outcome == "waits"


@pytest.mark.long
def test_cache_that_cannot_be_written(sources: Path, tmp_path: Path) -> None:
    """Also for root, whom permissions do not stop: the folder's parent is a file."""
    (tmp_path / "file").write_text("")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code, out, err = finished(start(sources, environment(tmp_path / "file" / "cache", TMPDIR=str(temporary))))
    assert code == 0, err
    folder = temporary / f"fastlangevin-{os.getuid()}"
    assert out.startswith(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_cache_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("FASTLANGEVIN_CACHE_DIR", raising=False)
    assert native.cache_folder() == tmp_path / "home" / ".cache" / "fastlangevin"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert native.cache_folder() == tmp_path / "xdg" / "fastlangevin"
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", str(tmp_path / "own"))
    assert native.cache_folder() == tmp_path / "own"


@pytest.mark.long
def test_shipped_library_of_other_sources_is_not_used(sources: Path, tmp_path: Path) -> None:
    """A library beside native.py that does not match, or is no library at all, is passed over."""
    beside = tmp_path / "package" / "native.py"
    beside.parent.mkdir()
    shipped = beside.with_name(builder.LIBRARY)
    shipped.write_bytes(b"not a library")
    env = environment(tmp_path / "cache")
    code, out, err = finished(start(sources, env, beside=str(beside)))
    assert code == 0, err
    built = Path(out.split()[0])
    assert built.is_relative_to(tmp_path / "cache")

    shutil.copy(built, shipped)
    code, out, err = finished(start(sources, env, beside=str(beside)))
    assert code == 0, err
    assert out.startswith(str(shipped))

    (sources / "normal.h").write_text((sources / "normal.h").read_text() + "\n")
    code, _, err = finished(start(sources, {**env, "FASTLANGEVIN_NO_BUILD": "1"}, beside=str(beside)))
    assert code == 1
    assert "was built from other sources" in err


def test_import_loads_nothing() -> None:
    root = Path(native.__file__).resolve().parents[1]
    code = (
        "import sys; from fastlangevin.kernels.cpp import native; "
        "assert native._library is None; assert 'triton' not in sys.modules"
    )
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = environment(Path("/nowhere"), FASTLANGEVIN_NO_BUILD="1", PYTHONPATH=path)
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=600)
