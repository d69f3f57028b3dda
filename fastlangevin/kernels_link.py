"""Finds the kernels where a checkout has lost the link to them, when it is imported."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["lost", "mend"]

NAME = "fastlangevin.kernels"


def lost() -> str | None:
    """Returns why the kernels cannot be imported, or None if they can.

    Archives and checkouts without symbolic links lose ``fastlangevin/kernels``, a link to ``../kernels``.
    """
    spec = importlib.util.find_spec(NAME)
    if spec is not None and spec.origin is not None:  # an empty folder is a package too, of no origin
        return None
    path = Path(__file__).with_name("kernels")
    found = "is a file where a link should be" if path.is_file() else "is not there"
    return (
        f"the kernels, {NAME}, are missing: {path} {found}; it is a link to ../kernels, which archives and checkouts "
        "without symbolic links lose. Install the package (pip install .), or check it out by "
        "`git -c core.symlinks=true checkout -- fastlangevin/kernels`"
    )


def mend() -> None:
    """Lets the kernels be imported from beside the package, if the link to them is lost and they are there.

    Raises:
        ImportError: they are nowhere; the message says what to do.
    """
    why = lost()
    if why is None:
        return
    beside = Path(__file__).resolve().parents[1] / "kernels"
    start = beside / "__init__.py"
    # Another project's folder may have this name.
    if not (start.is_file() and (beside / "address.py").is_file() and (beside / "cpp" / "csrc").is_dir()):
        raise ImportError(why)
    spec = importlib.util.spec_from_file_location(NAME, start, submodule_search_locations=[str(beside)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


mend()
