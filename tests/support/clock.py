"""A clock that a run waits by, so that no test waits for a retry."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

from tap_balance import concurrency

if TYPE_CHECKING:
    from collections.abc import Iterator

_finished = concurrency._Pool.finished  # noqa: SLF001


class Clock:
    """Stands still, but for the waits of a run with nothing in flight."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waited = 0.0
        """Seconds of all waits."""

    def finished(
        self, pool: concurrency._Pool, seconds: float
    ) -> Iterator[concurrency._Fetch]:  # the signature of what it replaces
        if not pool.in_flight:
            self.now += seconds
            self.waited += seconds
            return iter(())
        return _finished(pool, seconds)


@contextmanager
def standing_still() -> Iterator[Clock]:
    """Let runs within this context wait by a clock of their own."""
    clock = Clock()
    with (
        mock.patch.object(concurrency, "time", SimpleNamespace(monotonic=lambda: clock.now)),
        mock.patch.object(
            concurrency._Pool,  # noqa: SLF001
            "finished",
            lambda pool, seconds: clock.finished(pool, seconds),  # noqa: PLW0108 - a bound method
        ),
    ):
        yield clock
