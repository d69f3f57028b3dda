"""Rewords the library's messages for the command line, where ``sigmas=`` is ``--sigmas``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

__all__ = ["names_of", "with_options"]

_GIVEN = r"(?<![\w.-])(?P<given>[A-Za-z]\w*)=(?P<value>False\b)?(?!=)"
# The argument that a message or a clause of it is about.
_SUBJECT = (
    r"(?:^|(?<=: )|(?<=; )|(?<=leave )|(?<=Leave )|(?<=give ))(?P<subject>[A-Za-z]\w*)(?= must\b| differ\b| out\b|\[\d)"
)
# A name with an underscore is no word of English, but may be part of a path.
_UNDERSCORED = r"(?<![\w./-])(?P<underscored>[A-Za-z]\w*_\w+)(?![\w/-]|\.\w)"
_NAMED = re.compile(f"{_GIVEN}|{_SUBJECT}|{_UNDERSCORED}")
# What stands in brackets is a call or a repr, except a hint such as download=True (--download).
_CALL = re.compile(r"\w\([^()]*\)")


def names_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The long option of a command for each of the library's keywords that has one."""
    found = {}
    for action in parser._actions:
        long = [option for option in action.option_strings if option.startswith("--")]
        if long:
            found[action.dest] = long[0]
    return found


def with_options(message: str, names: Mapping[str, str]) -> str:
    """A message, and behind it the options that set the keywords which it names, as far as it does not name them.

    Args:
        message: of an error, as the library words it.
        names: what :func:`names_of` found.
    """
    options = []
    for match in _NAMED.finditer(_CALL.sub("", message)):
        name = match["given"] or match["subject"] or match["underscored"]
        turned_off = names.get(f"no_{name}") if match["value"] else None
        option = turned_off or names.get(name)
        if option and option not in options and not re.search(rf"{option}(?![\w-])", message):
            options.append(option)
    return f"{message} (on the command line: {', '.join(options)})" if options else message
