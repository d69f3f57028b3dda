"""Environment variables that switch something on or off."""

from __future__ import annotations

import os

__all__ = ["switch"]

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def switch(name: str, default: bool) -> bool:
    """The value of a variable; the default if it is unset or empty.

    Args:
        name: of the variable.
        default: its value if it is not given.

    Raises:
        ValueError: it is neither 1 nor 0, nor one of the words for them.
    """
    value = os.environ.get(name, "")
    word = value.strip().lower()
    if not word:
        return default
    if word not in _WORDS:
        raise ValueError(f"{name} must be 1 or 0, got {value!r:.80}; unset it for the default, {int(default)}")
    return _WORDS[word]
