"""What the harnesses of promises share: their command line, and the record of what was reached."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import machine
from benchmarks.writing import write_record

__all__ = ["finish", "parser", "write"]


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser of a harness whose options begin with the file for its record."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, help="file for the record")
    return options


def finish(path: Path | None, promise: str, command: str, figure: str, control: str, kept: bool, **details: Any) -> int:
    """Prints a record, and writes it where there is a path.

    Args:
        path: the file, or None.
        promise: what the package promises, in a few words.
        command: what was called: ``python -m`` and the rest.
        figure: what was reached.
        control: what must fail in the same harness, and how it did.
        kept: whether the promise was kept and the control failed.
        details: numbers.

    Returns:
        The exit status.
    """
    record = {"promise": promise, "command": command, "figure": figure, "control": control, "kept": kept, **details}
    print(json.dumps(record, indent=1))
    if path is not None:
        write(path, record)
    return 0 if kept else 1


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes a record, with the machine that it was made on."""
    record["machine"] = machine(torch.device("cpu"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, record)
