"""Data that are read by a process which shares tensors meanwhile; here, where a worker's process can import them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from fastlangevin import data


class Sharing(data.Images):
    """Reads in a process that shares tensors on and on, as its thread that sends batches does."""

    in_memory = False

    def take(self, indices: Sequence[int]) -> Tensor:
        threading.Thread(target=self.share, daemon=True).start()
        return super().take(indices)

    def share(self) -> None:
        while True:
            torch.zeros(2**12).share_memory_()
