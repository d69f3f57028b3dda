"""SIGTERM and SIGINT in a long job: a flag that its loops poll, so that it ends between two steps with its state saved.

A training loop::

    with Stopping() as stop:
        with stop.immediately():        # compile, warm up: nothing to save yet
            first_step()
        for step in range(steps):
            train_step()
            if stop.signal is not None:
                save()
                stop.check()            # raises Stopped: the process exits with 143 or 130

A sampler is stopped in its callback: return ``stop.signal is not None`` to keep its state, or call ``stop.check``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Stopped", "Stopping"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """A signal asked the process to end.

    It is no ``Exception``, as ``KeyboardInterrupt`` is none: a callback's ``except Exception`` would swallow it, and
    the job would go on until it is killed without its state. As a ``SystemExit``, where nobody catches it, it ends the
    process with the exit code that shells and schedulers expect, after ``finally`` blocks and without a traceback.

    Attributes:
        signal: number of the signal.
        code: exit code, 128 + signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = number

    def __reduce__(self) -> tuple[type[Stopped], tuple[int]]:
        # By default an exception is made again from what SystemExit was given: the exit code.
        return type(self), (self.signal,)

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signal).name}"


class Stopping:
    """Context manager in which SIGTERM and SIGINT only set a flag; a second signal of a kind ends the process at once.

    The first signal of a kind, once it has reached Python, hands that kind back to the system, so the second one ends
    the process wherever it then is, inside a library that does not return to Python too. The former handlers come back
    at the end of the block.
    Processes forked inside it treat signals as if it were not there: a flag that nobody polls would make them immortal.

    Attributes:
        signal: number of the first signal that came, or None.
        active: False outside the main thread, where Python cannot handle signals: there nothing is installed, and the
            flag never sets.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.active = False
        self._immediate = False
        self._owner = 0
        self._former: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def exit_code(self) -> int | None:
        """143 after SIGTERM, 130 after SIGINT, None before any: ``sys.exit(stop.exit_code)``."""
        return None if self.signal is None else 128 + self.signal

    def check(self) -> None:
        """Raise :class:`Stopped` if a signal has come; for loops and callbacks."""
        if self.signal is not None:
            raise Stopped(self.signal)

    @contextlib.contextmanager
    def immediately(self) -> Iterator[None]:
        """A block in which a signal raises :class:`Stopped` where it finds the program.

        For compiling and warming up, where nothing can be polled and nothing is half-written. A signal that came before
        raises on entry; one that Python had to drop, since it came inside a destructor, raises at the end.
        """
        before, self._immediate = self._immediate, True
        try:
            self.check()
            yield
            self.check()
        finally:
            self._immediate = before

    def __enter__(self) -> Self:
        if self.active:
            raise RuntimeError("this Stopping is in use; make another one for a block inside its block")
        self.signal = None
        if threading.current_thread() is threading.main_thread():
            self._owner = os.getpid()
            self._former = {number: signal.getsignal(number) for number in SIGNALS}
            self.active = True
            for number in SIGNALS:
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active:
            self.active = False
            for number in SIGNALS:
                self._restore(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._owner:
            self._restore(number)
            signal.raise_signal(number)
            return
        signal.signal(number, signal.SIG_DFL)
        if self.signal is None:
            self.signal = number
        if self._immediate:
            raise Stopped(number)

    def _restore(self, number: int) -> None:
        former = self._former[number]
        # None: a handler that was not installed from Python, which Python cannot put back.
        signal.signal(number, signal.SIG_DFL if former is None else former)
