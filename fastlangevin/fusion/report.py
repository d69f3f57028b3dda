"""The report of a fusion: what was replaced, what was left, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastlangevin.fusion.replace import Replacement

__all__ = ["FusionReport", "Left", "Replaced"]


@dataclass(frozen=True)
class Replaced:
    """A norm that is computed by a fused operation now.

    Attributes:
        name: of the module in the network.
        kind: ``"InstanceNorm++"``, ``"conditional InstanceNorm++"`` or ``"GroupNorm"``.
        channels: C.
        activation: ``"ELU"`` or ``"SiLU"`` where it is computed in the same operation, else empty.
        note: why an activation behind it stays where it is; empty where there is none, or where it is fused.
    """

    name: str
    kind: str
    channels: int
    activation: str
    note: str


@dataclass(frozen=True)
class Left:
    """A module that could have been a norm by its parameters, and why it stays as it is.

    Attributes:
        name: of the module in the network.
        why: it was left.
    """

    name: str
    why: str


@dataclass
class FusionReport:
    """The result of :func:`fastlangevin.fuse`, a table under ``str()``. As a context manager it undoes it at the end.

    Attributes:
        replaced: the fused norms, in the network's order.
        left: what could have been norms.
        already: names of norms that were fused before.
        difference: by how much the network's output on the probe changed, relative to the largest output of the sample,
            where it is largest.
        allowed: what rounding explains there, likewise.
    """

    replaced: list[Replaced] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    difference: float = 0.0
    allowed: float = 0.0
    _replacements: Sequence[Replacement] = field(default=(), repr=False)

    def undo(self) -> None:
        """Gives the network its own norms and activations back, bit by bit; does nothing the second time.

        Raises:
            RuntimeError: a norm has got another class since, as by a parametrization.
        """
        for replacement in self._replacements:
            replacement.undo()
        self._replacements = ()

    def __enter__(self) -> FusionReport:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = [self._summary()]
        if self.replaced:
            rows = [
                (each.name, each.kind, str(each.channels), each.activation or "-", each.note) for each in self.replaced
            ]
            lines += _table([("replaced", "kind", "channels", "with", "the activation stays because"), *rows])
        if self.left:
            lines += _table([("left", "because"), *((each.name, each.why) for each in self.left)])
        return "\n".join(lines)

    def _summary(self) -> str:
        with_activation = sum(bool(each.activation) for each in self.replaced)
        parts = [f"{len(self.replaced)} norms fused, {with_activation} of them with the activation behind"]
        if self.already:
            parts.append(f"{len(self.already)} were fused already")
        if not self.replaced:
            parts[0] = "nothing to fuse"
        else:
            parts.append(f"the output changed by {self.difference:.1e}, rounding explains {self.allowed:.1e}")
        return "; ".join(parts)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]
