"""Signals that end a run in order: it saves behind the step that it is at, and exits with a code that says so."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75
"""Of a run that was told to stop, saved, and can go on: "try again later" among the codes of sysexits.h."""

# SIGUSR1 is what SLURM is asked to send before a job's time is up.
_SIGNALS = tuple(number for name in ("SIGTERM", "SIGINT", "SIGUSR1") if (number := getattr(signal, name, None)))


class Stopped(Exception):
    """A run was told to stop, and has saved."""


class Heard:
    """Which signal has come; None while there is none."""

    name: str | None = None


@contextmanager
def listening() -> Iterator[Heard]:
    """Inside, a signal to stop is only noted; a second interrupt from the keyboard ends the program as usual."""
    heard = Heard()

    def hear(number: int, frame: FrameType | None) -> None:
        if heard.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        heard.name = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
