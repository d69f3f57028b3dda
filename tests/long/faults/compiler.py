"""A C++ compiler that keeps its objects: ``CXX="python compiler.py"``, with their folder in ``FAULTS_OBJECTS``.

An object is known by its command and its preprocessed text, which is all that the compiler looks at; so a fault in one
file builds what includes it, and not the 30 objects of the library, which take 70 s of one core.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")


def main(arguments: list[str]) -> int:
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        print(f"none of {', '.join(COMPILERS)} is on PATH", file=sys.stderr)
        return 1
    if "-c" not in arguments:
        return subprocess.run([found, *arguments], check=False).returncode
    source, to = (arguments.index(flag) + 1 for flag in ("-c", "-o"))
    text = subprocess.run(
        [found, *arguments[: to - 1], *arguments[to + 1 :], "-E", "-P"], stdout=subprocess.PIPE, check=False
    )
    if text.returncode:
        return text.returncode
    flags = [each for place, each in enumerate(arguments) if place not in (source, to)]
    version = subprocess.run([found, "--version"], stdout=subprocess.PIPE, check=True).stdout
    digest = hashlib.sha256(repr((version, flags)).encode() + text.stdout).hexdigest()
    kept = Path(os.environ["FAULTS_OBJECTS"]) / f"{digest}.o"
    if not kept.exists():
        done = subprocess.run([found, *arguments], check=False)
        if done.returncode:
            return done.returncode
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.copyfile(arguments[to], partial)
        partial.rename(kept)
        return 0
    shutil.copyfile(kept, arguments[to])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
