"""Configurations that JSON can hold, written whole or not at all."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from torch import Tensor

from fastlangevin.storage.files import write_whole

__all__ = ["PlainConfiguration"]


def plain(value: Any) -> Any:
    """NumPy's and PyTorch's numbers as Python's, also inside lists and dictionaries; all else as it is."""
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


class PlainConfiguration:
    """A share in diffusers' ``ConfigMixin``: plain numbers in the configuration, and a file that is written whole."""

    def register_to_config(self, **kwargs: Any) -> None:
        """As diffusers', with plain numbers."""
        numbers = {key: plain(value) for key, value in kwargs.items()}
        super().register_to_config(**numbers)  # type: ignore[misc]  # of ConfigMixin

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Writes the configuration, of which an older file is left as it was if this fails.

        Args:
            json_file_path: file to write.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(json_file_path, self.to_json_string().encode())  # type: ignore[attr-defined]  # of ConfigMixin
