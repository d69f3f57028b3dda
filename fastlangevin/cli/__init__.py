"""The command line: ``fastlangevin sample``, ``train``, ``convert``, ``plan``, ``selftest`` and ``info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

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
        command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line on stderr and exit status 2."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        print(f"fastlangevin {options.command}: error: {error}", file=sys.stderr)
        return 2
    return status
