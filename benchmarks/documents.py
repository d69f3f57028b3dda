"""The documents whose tables and figures come from benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.writing import write_text

__all__ = ["ROOT", "documents", "rewrite"]

ROOT = Path(__file__).parents[1]


def documents() -> list[Path]:
    """README.md and docs/*.md."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rewrite(paths: Sequence[Path], renewed: Callable[[str], str], command: str, *, check: bool) -> int:
    """Writes what is generated of documents anew, or says where it is not that of the results.

    Args:
        paths: the documents.
        renewed: a document's text with everything that is generated written anew.
        command: what writes them, for whoever finds that they differ.
        check: only compare.

    Returns:
        The exit status: 1 where ``check`` finds a difference.
    """
    stale = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        new = renewed(text)
        if new != text:
            stale.append(path.name)
            if not check:
                write_text(path, new)
    if check:
        print(f"{', '.join(stale)}: run {command}" if stale else "the documents have the tables of the results")
    return int(check and bool(stale))
