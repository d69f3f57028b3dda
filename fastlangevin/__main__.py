"""``python -m fastlangevin``: the command line."""

import sys

from fastlangevin.cli import main

if __name__ == "__main__":
    sys.exit(main())
