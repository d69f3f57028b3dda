"""Fused norms for networks of other classes than this package's: ``fuse``.

recognise   which modules could be norms, by their parameters
formulas    which operation a norm is, and which of its parameters are what
agree       whether it computes that, by numbers
listen      what becomes of its result while the network runs
decide      which activations can move into it
replace     the change, and the way back
verify      whether the network's output is the same
"""

from fastlangevin.fusion.network import fuse
from fastlangevin.fusion.report import FusionReport, Left, Replaced

__all__ = ["FusionReport", "Left", "Replaced", "fuse"]
