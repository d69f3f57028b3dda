"""``python -m tests.gates``: see :mod:`tests.gates.compiling`."""

import sys

from tests.gates.compiling import main

if __name__ == "__main__":
    sys.exit(main())
