"""Values of arguments: integers and real numbers told from what only looks like them, and what errors show of them."""

from __future__ import annotations

import contextlib
import operator
import os

__all__ = ["from_environment", "index", "is_integer", "is_number", "real", "shown"]

BITS = 256
LETTERS = 80


def shown(value: object) -> str:
    """A value for a message: short, also where its ``repr`` is long, or fails.

    Python refuses to write integers of more than 4,300 digits, alone and in containers.

    Args:
        value: anything.
    """
    with contextlib.suppress(Exception):
        if isinstance(value, int) and value.bit_length() > BITS:
            return f"{'a negative' if value < 0 else 'an'} integer of {value.bit_length()} bits"
        text = repr(value)
        return text if len(text) <= LETTERS else f"{text[:LETTERS]}..."
    return f"a {type(value).__name__} that cannot be shown"


def is_integer(value: object) -> bool:
    """Whether a value is one integer: not a bool, of whatever library, nor an array that has dimensions."""
    if isinstance(value, int):
        return not isinstance(value, bool)
    return not (_is_bool(value) or getattr(value, "ndim", False)) and index(value) is not None


def index(value: object) -> int | None:
    """The Python int that an object is, None if it is none; of NumPy's and PyTorch's too."""
    if isinstance(value, int):  # whatever torch.compile has in its place, too
        return int(value)
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # the last of tensors without data
        return None


def is_number(value: object) -> bool:
    """Whether a value can be taken for a real number: not a bool or a complex number, of whatever library."""
    if type(value) is float or type(value) is int:
        return True
    kind = _kind(value)
    return (
        not _is_bool(value)
        and not kind.startswith("complex")
        and (hasattr(value, "__float__") or hasattr(value, "__index__"))
    )


def real(name: str, value: object, what: str) -> float:
    """A value as a Python float.

    Args:
        name: of the argument, for the message.
        value: a number of Python, NumPy or PyTorch.
        what: it must be, for the message: "a number above zero".

    Raises:
        TypeError: it is not one real number.
        ValueError: it is an integer that no float holds.
    """
    if type(value) is float:
        return value
    if is_number(value):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError as error:
            raise ValueError(f"{name} must be {what} that a float holds, got {shown(value)}") from error
        except (TypeError, ValueError, RuntimeError):  # of more elements than one, or without data
            pass
    raise TypeError(f"{name} must be {what}, got {shown(value)} ({type(value).__name__})")


def _kind(value: object) -> str:
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def _is_bool(value: object) -> bool:
    return isinstance(value, bool) or _kind(value).startswith("bool")


def from_environment(name: str, default: int) -> int:
    """The integer of an environment variable, such as those by which torchrun tells a process its place.

    Args:
        name: of the variable.
        default: if it is unset or empty.

    Raises:
        ValueError: it is something else than an integer, zero or above.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name} must be an integer, zero or above, got {shown(text)}; unset it outside torchrun")
    return int(text)
