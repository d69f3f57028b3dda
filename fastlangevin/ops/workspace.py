"""Memory for the large results of an objective, which are written anew at every call."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from fastlangevin.memory import observed
from fastlangevin.ops.quick import is_plain

__all__ = ["Workspace"]


class Pending:
    """Of a loss whose backward pass is still to come: autograd holds it as long as it holds the loss's graph."""

    done = False


class Workspace:
    """The perturbed samples and the gradient of the last call, for plain batches on the CPU.

    Fresh memory of that size is pages that the system has yet to map and clear, which for large batches takes about as
    long as the objective.
    """

    def __init__(self) -> None:
        self.perturbed = self.gradient = torch.empty(0, dtype=torch.float32, device="cpu")
        self._pending: weakref.ref[Pending] | None = None

    def claim(self, x: Tensor) -> Tensor | None:
        """The memory for the perturbed samples of a batch; None for a batch that is not plain.

        Raises:
            RuntimeError: the graph of the call before is still to be differentiated.
        """
        if not is_plain(x) or observed():
            return None
        pending = None if self._pending is None else self._pending()
        if pending is not None and not pending.done:
            raise RuntimeError(
                "workspace=True writes the perturbed samples and the gradient where the call before wrote them, whose "
                "backward pass is still to come; call backward() first, drop that loss, or leave workspace= out"
            )
        if self.perturbed.shape != x.shape:
            with torch.inference_mode(False):
                self.perturbed, self.gradient = torch.empty_like(x), torch.empty_like(x)
        return self.perturbed

    def begin(self) -> Pending:
        """Returns the token that the graph of this call holds until its backward pass."""
        pending = Pending()
        self._pending = weakref.ref(pending)
        return pending

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        # A copy has memory of its own, and no graph holds it.
        return type(self), ()
