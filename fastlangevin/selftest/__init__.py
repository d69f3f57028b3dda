"""Checks the package's guarantees on this machine within seconds: ``fastlangevin selftest``.

Known answers of the generator, the bits of every implementation against stored digests, a short chain against its exact
law, a resume, and checkpoints that are damaged. Nothing is written outside a temporary folder.
"""

from fastlangevin.selftest.checks import CHECKS, Failure
from fastlangevin.selftest.running import Outcome, run

__all__ = ["CHECKS", "Failure", "Outcome", "run"]
