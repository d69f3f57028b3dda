"""The command line: ``fastlangevin sample``, ``train``, ``convert``, ``plan``, ``selftest`` and ``info``."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
from collections.abc import Sequence

from fastlangevin.cli.wording import names_of, with_options

__all__ = ["main"]


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except where the help itself says what happens without the option."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    from fastlangevin.cli import convert, info, plan, sample, selftest, train

    top = argparse.ArgumentParser(
        prog="fastlangevin",
        description="Plan, train and sample score-based generative models, convert published ones.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    for name, module, summary in (
        ("sample", sample, "draw samples from a network and write them as a picture"),
        ("train", train, "train a score network by denoising score matching"),
        ("convert", convert, "make a checkpoint of this package from a published one"),
        ("plan", plan, "choose a ladder, updates a level and a step size"),
        ("selftest", selftest, "try the package's promises on this machine"),
        ("info", info, "say what runs here, and why"),
    ):
        command = commands.add_parser(name, help=summary, description=module.__doc__, formatter_class=_Help)
        module.add_arguments(command)
        command.set_defaults(run=module.run, names=names_of(command))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line on stderr and exit status 2.

    Where the reader of its output leaves, as ``head`` does, it ends without a word, with the status that shells have
    for that, 141.
    """
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError as error:
        if not _reader_left():
            print(f"fastlangevin: error: {error}", file=sys.stderr)
            return 2
        # What is still to be written goes nowhere, so that Python does not complain of it when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


def _reader_left() -> bool:
    """Returns whether nobody reads standard output any more; the broken pipe may be another, of a worker."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no poll, or no file
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def _run(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        print(f"fastlangevin {options.command}: error: {with_options(str(error), options.names)}", file=sys.stderr)
        return 2
    return status
