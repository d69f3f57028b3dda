"""Builds the C++ kernels into one shared library: through ninja where it is found, by the compiler alone elsewhere.

Only the standard library is imported, so that ``setup.py`` can load this file by its path before anything is installed.
Each instruction set is an object of its own, from the same source; the library picks one at run time, so what is built
here runs on any machine of the same architecture. ``-march=native`` would break that, and ``-ffast-math`` or a
contraction into fma would break the promise of equal bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = [
    "LIBRARY",
    "UNFINISHED",
    "BuildError",
    "build",
    "circumstances",
    "compiler_version",
    "find_compiler",
    "is_current",
    "objects",
    "source_hash",
    "sweep",
]

SOURCES = Path(__file__).resolve().parent / "csrc"
LIBRARY = "libfastlangevin.so"
UNFINISHED = ".build-"  # how the names of a build's own folders and files begin
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    # GCC leaves it out on x86, where it is worth 10% of a normal; Clang schedules anyway and ignores it.
    "-fschedule-insns",
    "-Wno-ignored-optimization-argument",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
)
# Nothing of the C++ run-time library is used: --as-needed leaves it out of what the loader has to find.
LINK_FLAGS = ("-shared", "-pthread") + (() if sys.platform == "darwin" else ("-Wl,--as-needed", "-Wl,-z,defs"))
X86 = {
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mf16c", "-mfma"),
    "sse2": ("-msse2",),
}
SECONDS = 600.0  # for one compiler or ninja run
SWEEPS = 10
# Where compilers, headers, libraries and room are looked for, and what of it is forbidden.
VARIABLES = (
    *("CXX", "PATH", "CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME"),
    *("FASTLANGEVIN_CACHE_DIR", "FASTLANGEVIN_NO_BUILD"),
)

# Of what a failed compiler printed an error message shows so many characters, and of one line so many.
EXCERPT, WIDEST = 6000, 1000
PROGRESS = re.compile(r"\[\d+/\d+\] |ninja: (Entering directory|build stopped)")
GAP = "[...]"
# Of ninja (the command follows), GCC, Clang and linkers.
ERRORS = r"^FAILED: |\berror\b|undefined (reference|symbol)|\bld(\.\w+)?: |cannot find|No such file|Killed"
ERROR = re.compile(ERRORS, re.IGNORECASE)


class BuildError(RuntimeError):
    """The C++ kernels could not be built; the message says why and what to do."""


def instruction_sets(machine: str | None = None) -> dict[str, tuple[str, ...]]:
    """Name and compiler flags of each instruction set for a machine (default: this one)."""
    machine = (machine or platform.machine()).lower()
    if machine in ("x86_64", "amd64"):
        return {**X86, "portable": ()}
    if machine in ("aarch64", "arm64"):
        return {"neon": (), "portable": ()}
    return {"portable": ()}


def find_compiler() -> list[str]:
    """The command of a C++ compiler: ``CXX``, or the first of c++, g++ and clang++ on PATH.

    Raises:
        BuildError: there is none.
    """
    wanted = os.environ.get("CXX", "").strip()
    if wanted:
        command = shlex.split(wanted)
        if shutil.which(command[0]) is None:
            raise BuildError(
                f"CXX={wanted!r}, but {command[0]!r} is not an executable; set CXX to a C++17 compiler or unset it"
            )
        return command
    for name in COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return [path]
    raise BuildError(
        f"no C++ compiler was found (looked for CXX, {', '.join(COMPILERS)}); install one, for instance "
        "`apt-get install g++`, `dnf install gcc-c++`, `conda install -c conda-forge cxx-compiler` or "
        "`xcode-select --install`, or use impl='reference'"
    )


def find_ninja() -> str | None:
    """The ninja program: of the Python package (also in an environment that is not activated), else on PATH."""
    spec = importlib.util.find_spec("ninja")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent
        for path in (folder / "data" / "bin" / "ninja", Path(sys.executable).parent / "ninja"):
            if os.access(path, os.X_OK):
                return str(path)
    return shutil.which("ninja")


def source_hash() -> str:
    """Hash of the sources and the flags: 32 hexadecimal digits, which the library carries inside it."""
    digest = hashlib.sha256(repr((FLAGS, LINK_FLAGS, X86)).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".h", ".cpp"):
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]


def circumstances() -> tuple[object, ...]:
    """Everything a build depends on, files by size and time. While it is the same, a failed build fails again."""
    program = None
    with contextlib.suppress(BuildError):
        program = shutil.which(find_compiler()[0])
    files = [
        *sorted(SOURCES.iterdir()),
        Path(__file__).with_name(LIBRARY),
        *([] if program is None else [Path(program)]),
    ]
    found: list[object] = [os.environ.get(name) for name in VARIABLES]
    for path in files:
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def is_current(library: Path) -> bool:
    """Returns whether a library is there and was built from these sources with these flags."""
    return library.is_file() and source_hash().encode() in library.read_bytes()


def _excerpt(output: str) -> str:
    """The output of a failed program, or only its errors with the lines around them if it is long."""
    # Of ninja: what it has begun, and compilers that said nothing.
    lines = [line for line in output.splitlines() if not PROGRESS.match(line)]
    if sum(map(len, lines)) + len(lines) <= EXCERPT:
        return "\n".join(lines)
    errors = [at for at, line in enumerate(lines) if ERROR.search(line)] or [len(lines) - 1]
    # The first ones, since one error leads to others, and more around the very first.
    shown: set[int] = set()
    room = EXCERPT
    for error in errors:
        before, after = (3, 6) if shown else (10, 20)
        # The error itself before what is around it.
        for at in sorted(
            range(max(error - before, 0), min(error + after + 1, len(lines))), key=lambda at: abs(at - error)
        ):
            room -= 0 if at in shown else min(len(lines[at]), WIDEST) + len(GAP) + 2
            if room < 0:
                break
            shown.add(at)
    text: list[str] = []
    for at in sorted(shown):
        text += [GAP] if text and at - 1 not in shown else []
        text.append(lines[at] if len(lines[at]) <= WIDEST else lines[at][:WIDEST] + GAP)
    return "\n".join(text)


def _run(command: list[str], folder: Path | None = None) -> str:
    """Runs a program and returns what it printed."""
    shown = shlex.join(command)
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False
        )
    except OSError as error:
        raise BuildError(f"{shown} could not be started: {error}; set CXX to a working C++17 compiler") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{shown} did not end within {SECONDS:.0f} s") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise BuildError(
            f"{shown} failed with status {done.returncode}; the C++ kernels are known to build with GCC 11, Clang 13 "
            f"and newer (set CXX to choose one). Its output:\n{_excerpt(output)}"
        )
    return output


def compiler_version(compiler: list[str]) -> str:
    """The first line of ``--version``."""
    return _run([*compiler, "--version"]).partition("\n")[0]


def objects(machine: str | None = None) -> list[tuple[str, Path, tuple[str, ...]]]:
    """Object name, source and extra flags of everything that is compiled for a machine (default: this one).

    A source that includes ``instruction_set.h`` is compiled once for each instruction set.
    """
    found: list[tuple[str, Path, tuple[str, ...]]] = []
    for source in sorted(SOURCES.glob("*.cpp")):
        if '"instruction_set.h"' in source.read_text(encoding="utf-8"):
            found += [
                (f"{name}-{source.stem}.o", source, (*flags, f"-DFL_SET={name}"))
                for name, flags in instruction_sets(machine).items()
            ]
        else:
            defined = (f'-DFL_SOURCE_HASH="{source_hash()}"',) if source.name == "library.cpp" else ()
            found.append((f"{source.stem}.o", source, ("-pthread", *defined)))
    return found


def _ninja_file(compiler: list[str]) -> str:
    def quoted(words: tuple[str, ...] | list[str]) -> str:
        return shlex.join(words).replace("$", "$$")

    def path(value: Path | str) -> str:
        return str(value).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

    lines = [
        f"cxx = {quoted(compiler)}",
        "rule compile",
        f"  command = $cxx {quoted(FLAGS)} $extra -c $in -o $out",
        "  description = $out",
        "rule link",
        f"  command = $cxx $in {quoted(LINK_FLAGS)} -o $out",
        "  description = $out",
    ]
    parts = objects()
    for name, source, extra in parts:
        lines += [f"build {name}: compile {path(source)}", f"  extra = {quoted(extra)}"]
    lines.append(f"build {LIBRARY}: link {' '.join(name for name, _, _ in parts)}")
    return "\n".join(lines) + "\n"


def build(destination: Path, *, use_ninja: bool = True) -> Path:
    """Builds the library and puts it into a folder, replacing an older one in a single rename.

    Args:
        destination: the folder; made if it is not there.
        use_ninja: False calls the compiler directly even where ninja is found.

    Returns:
        The library's path.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    compiler = find_compiler()
    destination = Path(destination)
    destination.mkdir(parents=True, exist_ok=True)
    ninja = find_ninja() if use_ninja else None
    # Beside the destination, so that the last step is a rename inside one file system.
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=destination) as name:
        folder = Path(name).resolve()
        if ninja is not None:
            (folder / "build.ninja").write_text(_ninja_file(compiler))
            _run([ninja, "-C", str(folder)])
        else:
            parts = objects()
            for output, source, extra in parts:
                _run([*compiler, *FLAGS, *extra, "-c", str(source), "-o", output], folder)
            _run([*compiler, *(output for output, _, _ in parts), *LINK_FLAGS, "-o", LIBRARY], folder)
        os.replace(folder / LIBRARY, destination / LIBRARY)
    return destination / LIBRARY


def sweep(destination: Path) -> None:
    """Removes what killed builds have left in a folder; what cannot be removed stays.

    Only for whoever knows that no other build is under way there.

    Args:
        destination: the folder of :func:`build`.
    """
    for path in Path(destination).glob(f"{UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink():
            # Compilers outlive a builder that is killed alone, and may write while their folder is emptied.
            for _ in range(SWEEPS):
                shutil.rmtree(path, ignore_errors=True)
                if not path.exists():
                    break
        else:
            with contextlib.suppress(OSError):
                path.unlink()
