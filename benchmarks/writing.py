"""Records, documents and pictures, which are written whole or not at all: a run that is killed leaves the old file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

__all__ = ["write_figure", "write_record", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Writes a document."""
    # Here, since some harnesses decide what PyTorch and Triton see before they are imported.
    from fastlangevin.storage.files import write_whole

    write_whole(path, text.encode())


def write_record(path: Path, record: Any) -> None:
    """Writes a record as JSON."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def write_figure(path: Path, figure: Any, dpi: int) -> None:
    """Writes a figure of matplotlib's as a PNG file."""
    from fastlangevin.storage.files import write_whole

    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=dpi)
    write_whole(path, encoded.getvalue())
