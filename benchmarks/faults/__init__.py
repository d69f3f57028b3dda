"""The table of seeded faults for ``benchmarks.mutation``, and changes that are none."""

from benchmarks.faults.compiled import COMPILED
from benchmarks.faults.equivalent import EQUIVALENT
from benchmarks.faults.fault import Fault
from benchmarks.faults.formulas import FORMULAS
from benchmarks.faults.plain import PLAIN
from benchmarks.faults.running import RUNNING
from benchmarks.faults.tritons import TRITON

__all__ = ["EQUIVALENT", "FAULTS"]

FAULTS: tuple[Fault, ...] = (*PLAIN, *TRITON, *COMPILED, *FORMULAS, *RUNNING)
