"""How far a long run has come."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

INTERVAL = 10.0
"""Seconds between two lines. A run that is shorter says nothing."""


class Progress:
    """Counts the accounts that are done and tells about it now and then.

    Args:
        total: Accounts of the run.
        logger: Where it is told, at INFO.
    """

    def __init__(self, total: int, logger: logging.Logger) -> None:
        self._total = total
        self._logger = logger
        self._lock = threading.Lock()
        self._done = 0
        self._failed = 0
        self._told_at = time.monotonic()

    def count(self, *, failed: bool) -> None:
        """Count one account that is done."""
        with self._lock:
            self._done += 1
            self._failed += failed

    @property
    def seconds_left(self) -> float:
        """Seconds until it is time for the next line."""
        return max(self._told_at + INTERVAL - time.monotonic(), 0.0)

    def tell(self) -> None:
        """Write a line if it is time for one."""
        if self.seconds_left:
            return
        self._told_at = time.monotonic()
        with self._lock:
            done, failed = self._done, self._failed
        self._logger.info(
            "accounts: %d done, %d of them failed, %d left", done, failed, self._total - done
        )
