"""How long tests wait for the processes that they start."""

import subprocess
import time
from pathlib import Path

# A process that has not ended by then hangs. This is no bound on speed: on two cores with a load of ten, what takes a
# second alone has been seen to take forty.
HUNG = 1200


def wait_for_text(path: Path, text: str, process: subprocess.Popen) -> None:
    """Waits until a file that a process writes holds a text, for as long as the process lives.

    Raises:
        AssertionError: the process ended without it, or hangs.
    """
    began = time.monotonic()
    while text not in path.read_text():
        ended = process.poll()
        assert ended is None or text in path.read_text(), f"it ended with {ended}: {path.read_text()}"
        assert time.monotonic() - began < HUNG, f"it hangs without {text!r}: {path.read_text()}"
        time.sleep(0.05)
