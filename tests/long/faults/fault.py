"""One seeded fault: a text of one file, and what stands in its place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Fault", "StaleTableError", "apply"]


class StaleTableError(Exception):
    """The table does not fit the tree: it must be brought up to date, or it says nothing."""


@dataclass(frozen=True)
class Fault:
    """A fault of the table.

    Attributes:
        name: what is wrong with it, in a few words.
        family: the kind of mistake.
        file: path in the repository.
        old: text that occurs there exactly once.
        new: what replaces it.
        tests: files or node ids of tests that should see it, in the order to try.
    """

    name: str
    family: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def is_compiled(self) -> bool:
        """Whether the C++ library must be built anew."""
        return self.file.startswith("kernels/cpp/csrc/")

    @property
    def digest(self) -> str:
        """By which a result is known to be of this fault and of no earlier form of it."""
        return hashlib.sha256("\0".join((self.file, self.old, self.new)).encode()).hexdigest()[:16]


def apply(fault: Fault, root: Path) -> str:
    """The file's text with the fault in it.

    Raises:
        StaleTableError: the old text is not there exactly once.
    """
    path = root / fault.file
    text = path.read_text() if path.is_file() else ""
    found = text.count(fault.old)
    if found != 1 or fault.old == fault.new:
        raise StaleTableError(
            f"{fault.name}: its old text occurs {found} times in {fault.file}, and must occur once and differ from the "
            "new one; bring tests/long/faults up to date"
        )
    return text.replace(fault.old, fault.new)
