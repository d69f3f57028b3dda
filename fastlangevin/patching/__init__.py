"""Putting the functions of :mod:`fastlangevin.compat` into a checkout of the code base that they stand in for."""

from fastlangevin.patching.code_bases import CODE_BASES, CodeBase
from fastlangevin.patching.replacing import patch
from fastlangevin.patching.report import Patch, Replacement

__all__ = ["CODE_BASES", "CodeBase", "Patch", "Replacement", "patch"]
