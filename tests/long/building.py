"""First imports of many processes at once, and builds that are killed: a library is there afterwards, within bounds.

    python -m tests.long.building --rounds 20 --kills 20 --json results.json

A process imports the kernels and loads the library, building it where there is none: the portable kernels alone and not
optimised, so that a build takes seconds; locks, temporary folders and renames are those of every build. Rounds: 8 such
processes begin with an empty cache; each must have the library, and one alone may have built it. Kills: a process is
killed (-9) at a random moment of its build, every other time with its compilers; the next one must have the library.

The control is the lock of PyTorch's own extensions, with the file that a killed build leaves: whoever comes next waits.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fastlangevin.kernels.cpp import build as builder
from fastlangevin.kernels.cpp import native
from tests.long.record import finish, parser

__all__ = ["at_once", "control", "environment", "finished", "kill", "portable_sources", "start"]

BOUND = 600.0  # a last resort: on a busy machine a build takes many times as long as alone
PROCESSES = 8

# A fresh process that must find or build a library, and says which sets it has. PyTorch, which takes seconds to import
# and which loading does not use, is an empty module; the library is the portable kernels alone, not optimised.
SCRIPT = """
import sys, types
from pathlib import Path
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.__file__ = "/nowhere/torch/__init__.py"
for name in ("Tensor", "float16", "bfloat16", "float32", "float64", "bool"):
    setattr(torch, name, type(name, (), {}))
package = sys.modules["package"] = types.ModuleType("package")
package.__path__ = [sys.argv[1]]
from package.cpp import build, cache, native
build.SOURCES = Path(sys.argv[2])
build.FLAGS = tuple(flag.replace("-O3", "-O0") for flag in build.FLAGS)
build.instruction_sets = lambda machine=None: {"portable": ()}
native.__file__ = sys.argv[3]
cache.LOCK_SECONDS = float(sys.argv[4])
print(native.load()._name, *native.instruction_sets())
"""

STALE = """
import sys
from torch.utils.file_baton import FileBaton
baton = FileBaton(sys.argv[1])
print("begins", flush=True)
baton.try_acquire() or baton.wait()
"""


def portable_sources(folder: Path) -> Path:
    """The C++ sources in a new folder, made to offer the portable kernels alone."""
    shutil.copytree(builder.SOURCES, folder)
    library = (folder / "library.cpp").read_text()
    for name in ("__x86_64__", "__aarch64__"):
        library = library.replace(f"defined({name})", "0")
    (folder / "library.cpp").write_text(library)
    return folder


def environment(cache: Path, **extra: str) -> dict[str, str]:
    cleared = ("FASTLANGEVIN_CACHE_DIR", "FASTLANGEVIN_NO_BUILD", "XDG_CACHE_HOME")
    base = {key: value for key, value in os.environ.items() if key not in cleared}
    return {**base, "FASTLANGEVIN_CACHE_DIR": str(cache), **extra}


def start(
    sources: Path, env: dict[str, str], lock_seconds: float = BOUND, beside: str = "/nowhere/native.py"
) -> subprocess.Popen[str]:
    """A process of :data:`SCRIPT`, the first of a group of its own."""
    package = str(Path(native.__file__).resolve().parents[1])
    command = [sys.executable, "-c", SCRIPT, package, str(sources), beside, str(lock_seconds)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=env, start_new_session=True, **pipes)


def finished(process: subprocess.Popen[str], seconds: float = BOUND) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def at_once(sources: Path, cache: Path, count: int) -> list[str]:
    """First imports of so many processes with an empty cache: what went wrong."""
    processes = [start(sources, environment(cache)) for _ in range(count)]
    results = [finished(process, BOUND) for process in processes]
    wrong = [err[-300:] for code, _, err in results if code]
    if len({out for code, out, _ in results if not code}) > 1:
        wrong.append("they did not load the same library")
    # A second build would have replaced the file, and a failed one would have left something.
    folders = [each for each in cache.iterdir() if each.is_dir()]
    left = [each.name for folder in folders for each in folder.iterdir()]
    return wrong + ([] if left == [builder.LIBRARY] else [f"the cache holds {left}"])


def kill(sources: Path, cache: Path, seconds: float, group: bool) -> dict[str, Any]:
    """Kills a build some seconds after it has begun, with its compilers or without, and imports again.

    Returns:
        ``killed``: whether it was still building; ``error`` of the next import, or None; ``seconds`` that it took.
    """
    process = start(sources, environment(cache))
    while process.poll() is None and not any(cache.glob("*/.build-*")):
        time.sleep(0.005)
    time.sleep(seconds)
    killed = process.poll() is None
    if killed:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    code, _, err = finished(start(sources, environment(cache)), BOUND)
    return {"killed": killed, "error": err[-300:] if code else None, "seconds": time.monotonic() - began}


def control(folder: Path, seconds: float = 3.0) -> str:
    """Whether PyTorch's own lock is still waited for, with the file of a build that is no more."""
    lock = folder / "lock"
    lock.touch()
    process = subprocess.Popen([sys.executable, "-c", STALE, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # the import of PyTorch is not counted
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return "waits"
    else:
        return "goes on"
    finally:
        process.kill()
        process.communicate()


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=20, help=f"of {PROCESSES} first imports at once")
    options.add_argument("--kills", type=int, default=20)
    chosen = options.parse_args()
    chance = random.Random()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = portable_sources(folder / "csrc")
        began = time.monotonic()
        wrong = at_once(sources, folder / "first", 1)
        typical = time.monotonic() - began
        for number in range(chosen.rounds):
            wrong += at_once(sources, folder / f"round {number}", PROCESSES)
        kills: list[dict[str, Any]] = []
        while sum(each["killed"] for each in kills) < chosen.kills and len(kills) < 10 * chosen.kills:
            moment = chance.uniform(0.02, 1.0) * typical
            kills.append(kill(sources, folder / f"kill {len(kills)}", moment, bool(len(kills) % 2)))
        waits = control(folder)
    killed = [each for each in kills if each["killed"]]
    slowest = max((each["seconds"] for each in killed), default=0.0)
    failed = [each["error"] for each in killed if each["error"]]
    return finish(
        chosen.json,
        "first import and build are robust",
        f"python -m tests.long.building --rounds {chosen.rounds} --kills {chosen.kills}",
        f"{chosen.rounds} rounds of {PROCESSES} first imports at once: {len(wrong)} faults; {len(killed)} builds "
        f"killed: {len(failed)} of the next imports failed, the slowest took {slowest:.1f} s (a build alone "
        f"{typical:.1f} s)",
        f"PyTorch's own lock with the file of a killed build, given 3 s: {waits}",
        not wrong and not failed and len(killed) == chosen.kills and slowest < BOUND and waits == "waits",
        faults=wrong,
        failed=failed,
    )


if __name__ == "__main__":
    sys.exit(main())
