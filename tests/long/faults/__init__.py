"""The table of seeded faults for ``tests.long.mutation``, and changes that are none."""

from tests.long.faults.compiled import COMPILED
from tests.long.faults.equivalent import EQUIVALENT
from tests.long.faults.fault import Fault
from tests.long.faults.formulas import FORMULAS
from tests.long.faults.plain import PLAIN
from tests.long.faults.running import RUNNING
from tests.long.faults.tables import TABLES
from tests.long.faults.tritons import TRITON

__all__ = ["EQUIVALENT", "FAULTS"]

FAULTS: tuple[Fault, ...] = (*PLAIN, *TRITON, *COMPILED, *FORMULAS, *RUNNING, *TABLES)
