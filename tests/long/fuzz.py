"""Damaged and forged files for everything that reads one: the right data comes back, or the package's error.

    python -m tests.long.fuzz --inputs 1000000 --processes 2      all of it, minutes
    python -m tests.long.fuzz --inputs 20000 --json results.json
    python -m tests.long.fuzz --reader shard --first 1234 --inputs 1       one input again

Half of the inputs are valid files damaged by chance (bits, runs, truncations, splices of two files, numbers at their
limits, pieces of JSON), half are forged: their headers, descriptions and records are changed under right digests, which
is what a deliberate hand can do. A finding is whatever else than

- the content of the file, bit for bit, where it is one that the package writes; of a damaged file nothing at all;
- the errors that the reader promises, mostly ValueError;
- memory of at most the file's size and 100 MB, at its peak;
- an end within a minute, and a process that lives on;
- no shell, no connection, no call of what a pickle names.

Each reader works in a process of its own, so that a crash is a finding too. Controls are readers without one of the
checks, and must fail in the same harness. Inputs follow from the seed, the name of the reader and their number, but for
published pickles: torch.save writes addresses and times into them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tests.long.readers import CONTROLS, READERS, WrongError, opened
from tests.long.record import write

MEMORY = 100 * 10**6
MEMORY_FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else None
SECONDS = 60
CONTROL_INPUTS = 2000
CHUNK = 50_000  # inputs of a process
SHOWN = 5
# What no reader may do, by the names of Python's audit events.
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.",
    "socket.",
    "urllib.",
    "pickle.find_class",
)


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    found = re.search(rb"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_bytes())
    return int(found[1]) * 1024 if found else 0


class Hanging(BaseException):
    """A reader did not end."""


def _hangs(*_: object) -> None:
    raise Hanging


def fuzz(name: str, first: int, inputs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Gives a reader the inputs of these numbers, in this process.

    Returns:
        How many were refused, right and changed, the findings, and the largest growth of memory beyond a file's size.
    """
    shown = logging.root.manager.disable
    before_alarm = signal.signal(signal.SIGALRM, _hangs)
    logging.disable(logging.CRITICAL)  # of what fallback=True skipped
    try:
        return _fuzz(name, first, inputs, seed, folder)
    finally:
        logging.disable(shown)
        signal.signal(signal.SIGALRM, before_alarm)


def _fuzz(name: str, first: int, inputs: int, seed: int, folder: Path) -> dict[str, Any]:
    reader = opened(name, folder)
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    events: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event.startswith(FORBIDDEN):
            events.append(f"{event} {arguments!r:.200}")

    sys.addaudithook(watch)
    sprung = getattr(reader, "sprung", None)
    for warm in range(20):  # what is imported and cached at a first use is no input's
        _one(reader, random.Random(warm))
    before = most = peak()
    worst = 0
    for number in range(first, first + inputs):
        outcome = _one(reader, random.Random(f"{seed} {name} {number}"))
        if events:
            outcome = f"it did {events.pop()}"
            events.clear()
        if sprung is not None and sprung.exists():
            sprung.unlink()
            outcome = "a pickle was run"
        now = peak()
        if now > most:
            worst = max(worst, now - before - reader.size)
            if now - before > reader.size + MEMORY:
                outcome = f"it took {(now - before) >> 20} MiB for {reader.size} bytes"
                before = now
            most = now
        if outcome in ("refused", "right", "changed"):
            outcomes[outcome] += 1
        else:
            outcomes["findings"] += 1
            findings.append(f"{name} {number}: {outcome}")
    watching = False
    return {
        "inputs": inputs,
        **{kind: outcomes[kind] for kind in ("refused", "right", "changed", "findings")},
        "memory_beyond_the_file": worst,
        "shown": findings[:SHOWN],
    }


def _one(reader: Any, chance: random.Random) -> str:
    deliberate = reader.mutate(chance)
    signal.alarm(SECONDS)
    try:
        value = reader.read()
    except reader.errors:
        return "refused"
    except Hanging:
        return f"it had not ended after {SECONDS} s"
    except Exception as error:
        return _unforeseen(error)
    finally:
        signal.alarm(0)
    try:
        judged: str = reader.judge(value, deliberate)
    except WrongError as error:
        return str(error)
    except Exception as error:  # what was read cannot be worked with
        return _unforeseen(error)
    return judged


def _unforeseen(error: Exception) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else ""
    return f"{type(error).__name__} at {where}: {error!s:.200}"


def in_a_process(name: str, first: int, inputs: int, seed: int, folder: Path) -> dict[str, Any]:
    """:func:`fuzz` in another process; its death is a finding."""
    place = folder / f"{name.replace(' ', '-')}-{first}"
    place.mkdir()
    command = [sys.executable, "-m", "tests.long.fuzz", "--reader", name, "--first", str(first)]
    command += ["--inputs", str(inputs), "--seed", str(seed), "--folder", str(place)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        told = f"{name} {first} to {first + inputs - 1}: the process ended with {done.returncode}"
        return {"inputs": inputs, "findings": 1, "shown": [told]}
    return found


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The findings of a reader's processes as one."""
    counts = ("inputs", "refused", "right", "changed", "findings")
    return {
        **{name: sum(part.get(name, 0) for part in parts) for name in counts},
        "memory_beyond_the_file": max(part.get("memory_beyond_the_file", 0) for part in parts),
        "shown": [line for part in parts for line in part["shown"]][:SHOWN],
    }


def shares(inputs: int) -> dict[str, int]:
    """How many inputs each reader gets."""
    total = sum(reader.share for reader in READERS.values())
    counts = {name: round(inputs * reader.share / total) for name, reader in READERS.items()}
    counts["container"] += inputs - sum(counts.values())
    return counts


def failures(record: dict[str, Any]) -> list[str]:
    """Findings, and controls that prove nothing."""
    wrong = []
    for name, found in record["figure"].items():
        if found["findings"]:
            wrong.append(f"{name}: {found['findings']} of {found['inputs']} inputs, such as {found['shown'][0]}")
        if found.get("changed") and name not in ("training log", "published"):
            wrong.append(f"{name}: {found['changed']} inputs gave other data")
    for name, found in record["control"].items():
        if not found["findings"]:
            wrong.append(f"the control {name} passed: the inputs do not find what it lacks")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="at a time")
    parser.add_argument("--reader", choices=[*READERS, *CONTROLS], help="only this one, in this process")
    parser.add_argument("--first", type=int, default=0, help="number of the first input, with --reader")
    parser.add_argument("--folder", type=Path, help="for the mutants; in memory by default")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.reader:
        folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
        print(json.dumps(fuzz(options.reader, options.first, options.inputs, options.seed, folder)))
        return 0
    record: dict[str, Any] = {
        "benchmark": "fuzz",
        "command": f"python -m tests.long.fuzz --inputs {options.inputs} --seed {options.seed}",
        "figure": {},
        "control": {},
    }
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=options.folder or MEMORY_FOLDER) as place:
        counts = {**shares(options.inputs), **dict.fromkeys(CONTROLS, min(CONTROL_INPUTS, options.inputs))}
        with ThreadPoolExecutor(options.processes) as pool:
            waiting = {
                name: [
                    pool.submit(in_a_process, name, first, min(CHUNK, inputs - first), options.seed, Path(place))
                    for first in range(0, inputs, CHUNK)
                ]
                for name, inputs in counts.items()
            }
            for name, parts in waiting.items():
                found = merged([part.result() for part in parts])
                record["figure" if name in READERS else "control"][name] = found
                told = ", ".join(f"{key} {value:,}" for key, value in found.items() if isinstance(value, int))
                print(f"{name:20} {told}", flush=True)
    wrong = failures(record)
    for line in wrong:
        print(f"tests.long.fuzz: error: {line}", file=sys.stderr)
    if options.json:
        write(options.json, record)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
