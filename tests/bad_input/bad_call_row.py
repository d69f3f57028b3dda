"""One row of the table of bad calls, and the bad values that several rows share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from well_formed_calls import Arguments

NAN, INF = float("nan"), float("inf")
META = torch.device("meta")
MANY = 2**34 + 1  # elements, one more than the address has room for


@dataclass(frozen=True)
class Row:
    """A bad call: what replaces arguments of the well-formed one, and what replaces them in the mended one."""

    name: str
    call: str
    bad: Callable[[Arguments], Arguments]
    error: type[Exception]
    says: tuple[str, ...]
    good: Callable[[Arguments], Arguments] = lambda arguments: {}

    @property
    def id(self) -> str:
        return f"{self.call}-{self.name}".replace(" ", "-")
