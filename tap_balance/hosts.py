"""What a run has learned about a host, shared by all the accounts that ask there."""

from __future__ import annotations

import threading
import time

_SILENCES = 3
"""So many accounts, all their tries in vain, and a host that never answered counts as down."""

_SILENCES_AFTER_AN_ANSWER = 32
"""The same, in a row, for a host that has answered before."""


class Host:
    """Whether a host answers, and from when on it wants to be asked again."""

    def __init__(self) -> None:
        self.down = threading.Event()
        """Set while there is no point in asking it for yet another account."""
        self._lock = threading.Lock()
        self._enough = _SILENCES
        self._silences = 0
        self._resume_at = 0.0

    def answered(self) -> None:
        """Note that it answered, whatever it said."""
        with self._lock:
            self._enough = _SILENCES_AFTER_AN_ANSWER
            self._silences = 0
            self.down.clear()

    def stayed_silent(self) -> None:
        """Note that an account had no answer in any of its tries."""
        with self._lock:
            self._silences += 1
            if self._silences >= self._enough:
                self.down.set()

    def hold(self, seconds: float) -> None:
        """Note that it wants to be left alone for a while: by all accounts, not only by one."""
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    @property
    def pause(self) -> float:
        """Seconds until it may be asked again; 0 if now."""
        return max(self._resume_at - time.monotonic(), 0.0)
