"""Values of arguments: integers and real numbers told from what only looks like them, and what errors show of them."""

from __future__ import annotations

import contextlib
import operator

__all__ = ["index", "is_complex", "is_integer", "is_number", "real", "shown"]

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
    """Returns whether a value is one integer: not a bool, of whatever library, nor an array that has dimensions.

    Integers of Python, such as members of an IntEnum, are known by their class: PyTorch 2.10 and 2.11 cannot compile
    hasattr of a member.
    """
    if isinstance(value, int):
        return not isinstance(value, bool)
    return not (_is_bool(value) or getattr(value, "ndim", False)) and index(value) is not None


def index(value: object) -> int | None:
    """The Python int that an object is, None if it is none; of NumPy's and PyTorch's too."""
    if isinstance(value, int):
        return int(value)
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # the last of tensors without data
        return None


def is_number(value: object) -> bool:
    """Returns whether a value can be taken for a real number: not a bool or a complex number, of whatever library."""
    if isinstance(value, (float, int)):
        return not isinstance(value, bool)
    return (
        not _is_bool(value) and not is_complex(value) and (hasattr(value, "__float__") or hasattr(value, "__index__"))
    )


def is_complex(value: object) -> bool:
    """Returns whether a number, array or tensor is complex, or one in a nested sequence."""
    if isinstance(value, (list, tuple)):
        return any(map(is_complex, value))
    return isinstance(value, complex) or _kind(value).startswith("complex")


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
