"""Signals: a flag while a job works, an exception where nothing is half-done, the end of the process at the second."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from fastlangevin.stopping import Stopped, Stopping

BOTH = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


def handlers():
    return [signal.getsignal(number) for number, _ in BOTH]


@pytest.mark.parametrize(("number", "code"), BOTH)
def test_a_signal_sets_a_flag_and_nothing_else(number, code):
    before = handlers()
    with Stopping() as stop:
        assert stop.active
        assert stop.signal is None
        assert stop.exit_code is None
        stop.check()
        signal.raise_signal(number)
        assert (stop.signal, stop.exit_code) == (number, code)
        with pytest.raises(Stopped) as caught:
            stop.check()
    assert (caught.value.signal, caught.value.code) == (number, code)
    assert str(caught.value) == f"stopped by {signal.Signals(number).name}"
    assert handlers() == before


def test_the_first_signal_gives_the_exit_code():
    with Stopping() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 130


def test_it_can_be_pickled():
    again = pickle.loads(pickle.dumps(Stopped(signal.SIGTERM)))
    assert (type(again), again.signal, again.code) == (Stopped, 15, 143)
    assert str(again) == "stopped by SIGTERM"


def test_the_former_handlers_come_back_after_an_error():
    before = handlers()
    with pytest.raises(KeyError), Stopping():
        raise KeyError
    assert handlers() == before


def test_immediately_raises_where_it_is():
    reached = []

    def work(stop, number):
        with stop.immediately():
            reached.append("entered")
            signal.raise_signal(number)
            reached.append("after the signal")

    with Stopping() as stop:
        for _ in range(2):  # the second time it raises on entry
            with pytest.raises(Stopped):
                work(stop, signal.SIGTERM)
    assert reached == ["entered"]


def test_outside_immediately_nothing_is_raised_again():
    with Stopping() as stop:
        with stop.immediately(), stop.immediately():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_inside_a_destructor_is_raised_at_the_end_of_the_block():
    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0)

    with Stopping() as stop, pytest.raises(Stopped), stop.immediately():
        Dying()


def test_except_exception_in_a_callback_does_not_swallow_it():
    # The twin: an Exception would be swallowed, and the loop would run to its end.
    def loop(error):
        done = 0
        for _ in range(3):
            try:
                raise error
            except Exception:
                done += 1
        return done

    assert loop(RuntimeError()) == 3
    with pytest.raises(Stopped):
        loop(Stopped(signal.SIGTERM))


def test_outside_the_main_thread_it_does_nothing():
    before = handlers()
    seen = []

    def work():
        with Stopping() as stop, stop.immediately():
            seen.extend([stop.active, stop.signal, handlers() == before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, None, True]


def test_it_can_be_used_again_but_not_inside_itself():
    stop = Stopping()
    with stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(RuntimeError, match="make another one"), stop:
            pass
        assert stop.signal == signal.SIGTERM
    with stop:
        assert stop.signal is None


# What ends a process needs one.

HEAD = "import os, signal, sys, time\nfrom fastlangevin.stopping import Stopped, Stopping\n"


def run(body, *signals):
    """A process that prints "ready" and is then sent signals, each when it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + body],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
    )
    try:
        for number in signals:
            assert process.stdout.readline(), process.stderr.read()
            process.send_signal(number)
        out, error = process.communicate(timeout=600)  # it ends a hung test
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, error


POLLING = """
with Stopping() as stop:
    print("ready")
    told = False
    while True:
        time.sleep(0.01)
        if stop.signal and not told:
            told = True
            print("noted")
"""


@pytest.mark.parametrize(("number", "_"), BOTH)
def test_a_second_signal_of_the_same_kind_ends_the_process_at_once(number, _):
    code, _, _ = run(POLLING, number, number)
    assert code == -number


@pytest.mark.parametrize(("number", "expected"), BOTH)
def test_where_nobody_catches_it_the_process_exits_with_its_code(number, expected):
    body = """
with Stopping() as stop:
    print("ready")
    try:
        while True:
            time.sleep(0.01)
            stop.check()
    finally:
        print("saved")
"""
    assert run(body, number) == (expected, "saved\n", "")


def test_a_warm_up_is_left_at_once():
    body = """
with Stopping() as stop:
    with stop.immediately():
        print("ready")
        while True:
            time.sleep(1)
"""
    assert run(body, signal.SIGTERM) == (143, "", "")


def test_a_forked_child_ends_at_its_first_signal():
    body = """
with Stopping() as stop:
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        print("ready")
        os.write(telling, b".")
        while True:
            time.sleep(1)
    os.read(told, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitpid(child, 0)[1], stop.signal)
"""
    assert run(body) == (0, "ready\n15 None\n", "")
