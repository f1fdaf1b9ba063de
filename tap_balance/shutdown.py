"""The end of a run before its time: a signal asks for it, and everyone who waits obeys."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tap_balance.errors import RunEndedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_READER_GRACE = 10.0
"""Seconds that a reader of stdout has to take what is being written when a signal comes."""


class Shutdown:
    """Whether this run has been asked to end.

    A signal must not cut a message on stdout in two, so its handler raises only where the main
    thread says that it just waits (`waiting`); anywhere else the run notices at its next look
    (`check`).
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._exit_status = 0
        self._message = ""
        self._waiting = False

    @property
    def asked(self) -> bool:
        """Whether the run is to end."""
        return self._asked.is_set()

    def handle_signal(self, signum: int) -> None:
        """Ask the run to end; a second signal ends the process on the spot.

        Raises:
            RunEndedError: The main thread was only waiting.
        """
        if self.asked:
            os._exit(self._exit_status)
        self._exit_status = 128 + signum
        self._message = f"ended by {signal.Signals(signum).name}"
        self._asked.set()
        if hasattr(signal, "setitimer"):
            # Only a reader that stopped reading can keep the main thread from coming to an end.
            signal.signal(signal.SIGALRM, lambda *_: os._exit(self._exit_status))
            signal.setitimer(signal.ITIMER_REAL, _READER_GRACE)
        if self._waiting:
            self.check()

    def check(self) -> None:
        """Raise if the run is to end.

        Raises:
            RunEndedError: It is.
        """
        if self.asked:
            raise RunEndedError(self._message, self._exit_status)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal end, at once, what the main thread does inside."""
        self._waiting = True
        try:
            self.check()
            yield
        finally:
            self._waiting = False

    def sleep(self, seconds: float) -> None:
        """Sleep, but not past a request to end the run.

        Raises:
            RunEndedError: The run is to end.
        """
        if threading.current_thread() is threading.main_thread():
            # Not on the event: its lock is not reentrant, and the signal's handler, which runs
            # in this very thread, sets it. The handler ends this sleep by raising.
            time.sleep(seconds)
        else:
            self._asked.wait(seconds)
        self.check()
