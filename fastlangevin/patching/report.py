"""The result of patching, a :class:`Patch` that can be undone."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Self

from fastlangevin.patching.code_bases import Function

__all__ = ["Patch", "Replacement", "holders"]


def holders(value: Any) -> list[tuple[ModuleType, str]]:
    """The modules that have a value, and the names under which they do."""
    return [
        (module, name)
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType)
        for name, held in list(vars(module).items())
        if held is value
    ]


@dataclass(frozen=True)
class Replacement:
    """One name that was given another value.

    Attributes:
        owner: the module or class that has the name.
        name: the name.
        before: what it was.
        after: what it is now.
        ours: the function of this package behind it.
    """

    owner: Any
    name: str
    before: Any
    after: Any
    ours: Function

    @property
    def where(self) -> str:
        if isinstance(self.owner, type):
            return f"{self.owner.__module__}.{self.owner.__qualname__}.{self.name}"
        return f"{self.owner.__name__}.{self.name}"


@dataclass
class Patch:
    """The result of :func:`patch`. ``print`` it; ``undo()`` it, or use it as a context manager.

    Attributes:
        name: of the code base.
        replaced: every name that was given another value.
        missing: what was looked for and is not there, such as ``models.get_sigmas``.
        failed: modules that could not be imported, with the reason.
        different: what was left as it is, since its signature is not the published one, with the difference.
        wanted: how many functions, methods and classes were looked for.
    """

    name: str
    replaced: list[Replacement] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    different: dict[str, str] = field(default_factory=dict)
    wanted: int = 0

    def undo(self) -> None:
        """Gives every name back what it was, also in modules that were imported since. Calling it again does nothing.

        A name that somebody else has given another value in the meantime keeps that.
        """
        for each in self.replaced:
            if vars(each.owner).get(each.name) is each.after:
                setattr(each.owner, each.name, each.before)
            if not isinstance(each.owner, type):
                for owner, name in holders(each.after):
                    setattr(owner, name, each.before)
        self.replaced = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.replaced)} replaced"]
        lines += [f"  {each.where} -> {each.ours.__module__}.{each.ours.__name__}" for each in self.replaced]
        if self.missing:
            lines += [f"not found: {', '.join(self.missing)}"]
        return "\n".join(lines + self._left())

    def _left(self) -> list[str]:
        """Lines that a user should see without asking."""
        lines = [f"left as it is: {where}, {why}" for where, why in self.different.items()]
        return lines + [f"could not import {module}: {why}" for module, why in self.failed.items()]

    def warn(self) -> None:
        """Says by a warning what stays the checkout's own although it was wanted."""
        if self.different or self.failed:
            warnings.warn(
                f"patch({self.name!r}): {len({each.ours for each in self.replaced})} of {self.wanted} replaced; the "
                f"others stay the checkout's own. "
                f"{'; '.join(self._left())}. Install what is missing, or print() the result to see all of it",
                stacklevel=3,
            )
