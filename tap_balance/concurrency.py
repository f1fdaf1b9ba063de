"""Many accounts at once: as they complete, each host on its own, until a signal ends the run."""

from __future__ import annotations

import heapq
import os
import signal
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from tap_balance.client import exhausted, host_of, wait_after
from tap_balance.errors import (
    AccountError,
    RetriableError,
    RunEndedError,
    host_down,
    rate_limited,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence

    from tap_balance.accounts import Account
    from tap_balance.client import BalanceClient, Limits
    from tap_balance.responses import Balance

Outcome: TypeAlias = "Balance | AccountError"

PROGRESS_AFTER = 10.0
"""Seconds until a run reports its progress; then each time after twice as long."""

_FAILURES = 3
"""Accounts in a row that could not connect, in all their attempts, after which a host is down."""

_FAILURES_AFTER_A_CONNECTION = 32
"""The same for a host that could be reached before."""


def fetch_all(
    client: BalanceClient,
    accounts: Sequence[Account],
    *,
    limits: Limits,
    shutdown: Shutdown,
    logger: logging.Logger,
) -> Iterator[tuple[Account, Outcome]]:
    """Request the balances of all accounts, and yield each account as it completes.

    An account that waits for its next attempt holds no place in the pool, and a host that is down,
    slow or rate limiting holds back its own accounts only.

    Args:
        client: Makes the requests.
        accounts: Whose balances to request.
        limits: How much the run may do.
        shutdown: Ends the run early.
        logger: For attempts (DEBUG) and the progress of a long run (INFO).

    Raises:
        RunEndedError: The run is to end. What was complete has been yielded; requests in flight
            are abandoned.
    """
    yield from _Run(client, accounts, limits, shutdown, logger).outcomes()


@dataclass(eq=False, slots=True)
class _Host:
    """What the run knows about a host and port.

    Attributes:
        name: Shown to users.
        accounts: Those without an attempt so far.
        pending: Accounts with an attempt that are not complete.
        in_flight: Requests.
        resume_at: When it allows requests again, on the monotonic clock.
        failures: Attempts in a row that could not connect.
        exhausted: Accounts in a row that could not connect in all their attempts.
        enough: Such accounts after which it is down.
        slow: Whether the last attempt that ended had no response.
    """

    name: str
    accounts: deque[Account] = field(default_factory=deque)
    pending: int = 0
    in_flight: int = 0
    resume_at: float = 0.0
    failures: int = 0
    exhausted: int = 0
    enough: int = _FAILURES
    slow: bool = False

    @property
    def down(self) -> bool:
        """Whether requests to it are pointless."""
        return self.exhausted >= self.enough

    @property
    def doubtful(self) -> bool:
        """Whether the pending accounts are enough to find out if it is down."""
        return self.failures >= self.enough <= self.pending

    def record(self, outcome: Outcome) -> None:
        """Record how an attempt ended."""
        unreachable = isinstance(outcome, AccountError) and outcome.unreachable
        timed_out = isinstance(outcome, RetriableError) and outcome.timed_out
        self.slow = unreachable or timed_out
        if unreachable:
            self.failures += 1
        else:
            self.failures = self.exhausted = 0
            self.enough = _FAILURES_AFTER_A_CONNECTION
        if isinstance(outcome, RetriableError) and outcome.rate_limited:
            resume_at = time.monotonic() + (outcome.retry_after or 0.0)
            self.resume_at = max(self.resume_at, resume_at)


@dataclass(eq=False, slots=True)
class _Fetch:
    """An account with at least one attempt.

    Attributes:
        attempts: Complete ones.
        elapsed: Seconds of these, and of the waits between them.
        due: When the next one may begin, on the monotonic clock.
        seconds: How long the next one may take, and then how long it took.
        outcome: How the last one ended.
    """

    account: Account
    host: _Host
    attempts: int = 0
    elapsed: float = 0.0
    due: float = 0.0
    seconds: float = 0.0
    outcome: Outcome = field(default_factory=lambda: AccountError("", ""))

    def __lt__(self, other: _Fetch) -> bool:
        return self.due < other.due


class _Pool:
    """Threads that make one attempt after the other, started when they are needed."""

    def __init__(self, client: BalanceClient, size: int, shutdown: Shutdown) -> None:
        self._client = client
        self._shutdown = shutdown
        self._todo: SimpleQueue[_Fetch | None] = SimpleQueue()
        self._done: SimpleQueue[_Fetch | None] = SimpleQueue()
        self._threads = 0
        self.size = size
        self.in_flight = 0

    def submit(self, fetch: _Fetch) -> bool:
        """Begin an attempt, unless there is no place for it."""
        if self.in_flight == self._threads and not self._grow():
            if self.in_flight:
                return False
            with self._shutdown.interrupting():  # there is no thread at all but this one
                self._attempt(fetch)
        else:
            self._todo.put(fetch)
        self.in_flight += 1
        return True

    def _grow(self) -> bool:
        # Not a ThreadPoolExecutor: where the system has no thread left, its `submit` raises, and
        # one of its threads makes the request all the same.
        try:
            threading.Thread(target=self._work, name="balance", daemon=True).start()
        except RuntimeError:
            self.size = max(self._threads, 1)
            return False
        self._threads += 1
        return True

    def _work(self) -> None:
        while (fetch := self._todo.get()) is not None:
            self._attempt(fetch)

    def _attempt(self, fetch: _Fetch) -> None:
        began = time.monotonic()
        try:
            fetch.outcome = self._client.fetch(fetch.account, fetch.seconds)
        except AccountError as error:
            fetch.outcome = error.with_traceback(None)  # whose frames refer to `fetch`
        except Exception as error:  # noqa: BLE001 - one account must not stop the others
            fetch.outcome = _defect(error)
        fetch.seconds = time.monotonic() - began
        self._done.put(fetch)

    def finished(self, seconds: float) -> Iterator[_Fetch]:
        """Yield the attempts that have ended, waiting for the first of them.

        Args:
            seconds: To wait at most.
        """
        try:
            fetch = self._done.get(timeout=seconds) if seconds > 0 else self._done.get_nowait()
            while True:
                if fetch is not None:
                    self.in_flight -= 1
                    yield fetch
                fetch = self._done.get_nowait()
        except Empty:
            return

    def wake(self) -> None:
        """End the waiting in `finished`; signal handlers may call this."""
        self._done.put(None)

    def close(self) -> None:
        """Let the threads end after their attempts."""
        for _ in range(self._threads):
            self._todo.put(None)


class _Run:
    """Decides which account is next, and what follows from how its attempt ended."""

    def __init__(
        self,
        client: BalanceClient,
        accounts: Sequence[Account],
        limits: Limits,
        shutdown: Shutdown,
        logger: logging.Logger,
    ) -> None:
        self._limits = limits
        self._shutdown = shutdown
        self._logger = logger
        self._total = self._left = len(accounts)
        self._failed = 0
        self._began = self._reported_at = time.monotonic()
        hosts: dict[str, _Host] = {}
        for account in accounts:
            name = host_of(account.url)
            hosts.setdefault(name, _Host(name)).accounts.append(account)
        self._hosts = deque(hosts.values())  # those with accounts that have had no attempt
        self._waiting: list[_Fetch] = []  # a heap
        self._due: deque[_Fetch] = deque()
        self._late: deque[_Fetch] = deque()
        self._outcomes: deque[tuple[Account, Outcome]] = deque()
        self._pool = _Pool(client, min(limits.max_concurrency, len(accounts)), shutdown)

    def outcomes(self) -> Iterator[tuple[Account, Outcome]]:
        """Yield each account as it completes."""
        self._shutdown.wake = self._pool.wake
        try:
            while self._left:
                if not self._shutdown.requested:
                    self._fill()
                elif not self._outcomes:
                    self._shutdown.check()
                if self._outcomes:
                    account, outcome = self._outcomes.popleft()
                    self._left -= 1
                    self._failed += isinstance(outcome, AccountError)
                    yield account, outcome
                self._report()
                for fetch in self._pool.finished(self._seconds_to_wait()):
                    self._settle(fetch)
            self._shutdown.check()
        finally:
            self._pool.close()

    def _fill(self) -> None:
        """Begin as many attempts as there are places for."""
        now = time.monotonic()
        while self._waiting and self._waiting[0].due <= now:
            fetch = heapq.heappop(self._waiting)
            timed_out = isinstance(fetch.outcome, RetriableError) and fetch.outcome.timed_out
            # It may take all its time once more, so those that were never requested come first.
            (self._late if timed_out else self._due).append(fetch)
        while self._pool.in_flight < self._pool.size and (found := self._next(now)):
            seconds_left = self._limits.max_elapsed - found.elapsed
            found.seconds = min(self._limits.request_timeout, seconds_left)
            if not self._pool.submit(found):
                self._due.appendleft(found)
                return
            found.host.in_flight += 1

    def _next(self, now: float) -> _Fetch | None:
        while self._due or self._hosts or self._late:
            fetch = (
                self._due.popleft()
                if self._due
                else self._new(now) or (self._late.popleft() if self._late else None)
            )
            if fetch is None or not isinstance(fetch.outcome, RetriableError):
                return fetch
            pause = fetch.host.resume_at - now
            if not fetch.host.down and pause <= 0:
                return fetch
            self._retry_or_finish(fetch, fetch.outcome, pause)
        return None

    def _new(self, now: float) -> _Fetch | None:
        """Take an account that has had no attempt, from the hosts in turn.

        A host without responses, or one that has its share of the places, comes last.
        """
        share = max(self._limits.max_concurrency // max(len(self._hosts), 1), 1)
        last: _Host | None = None
        for _ in range(len(self._hosts)):
            host = self._hosts[0]
            pause = host.resume_at - now
            if host.down:
                self._finish_all(host, host_down(host.name))
            elif pause >= self._limits.max_elapsed:
                error = exhausted(rate_limited(host.name, pause), 0, 0.0, self._limits)
                self._finish_all(host, error)
            if not host.accounts:
                self._hosts.popleft()
                continue
            self._hosts.rotate(-1)
            if pause > 0 or host.doubtful:
                continue
            if not host.slow and host.in_flight < share:
                return self._take(host)
            if last is None or host.in_flight < last.in_flight:
                last = host
        return self._take(last) if last else None

    @staticmethod
    def _take(host: _Host) -> _Fetch:
        host.pending += 1
        return _Fetch(host.accounts.popleft(), host)

    def _finish_all(self, host: _Host, error: AccountError) -> None:
        self._outcomes.extend((account, error) for account in host.accounts)
        host.accounts.clear()

    def _settle(self, fetch: _Fetch) -> None:
        """Decide what follows from the attempt that has just ended."""
        fetch.host.in_flight -= 1
        fetch.attempts += 1
        fetch.elapsed += fetch.seconds
        fetch.host.record(fetch.outcome)
        if isinstance(fetch.outcome, AccountError):
            self._logger.debug(
                "account %r: attempt %d: %s", fetch.account.name, fetch.attempts, fetch.outcome
            )
        if isinstance(fetch.outcome, RetriableError):
            self._retry_or_finish(fetch, fetch.outcome, wait_after(fetch.outcome, fetch.attempts))
        else:
            self._finish(fetch, fetch.outcome)

    def _retry_or_finish(self, fetch: _Fetch, error: RetriableError, wait: float) -> None:
        limits = self._limits
        if (
            fetch.attempts < limits.max_attempts
            and fetch.elapsed + wait < limits.max_elapsed
            and not fetch.host.down
        ):
            fetch.elapsed += wait
            fetch.due = time.monotonic() + wait
            heapq.heappush(self._waiting, fetch)
        else:
            self._finish(fetch, exhausted(error, fetch.attempts, fetch.elapsed, limits))

    def _finish(self, fetch: _Fetch, outcome: Outcome) -> None:
        host = fetch.host
        host.pending -= 1
        self._outcomes.append((fetch.account, outcome))
        if isinstance(outcome, AccountError) and outcome.unreachable:
            host.exhausted += 1
            if host.exhausted == host.enough:  # those that wait for an attempt need not wait
                for waiting in self._waiting:
                    waiting.due = 0.0 if waiting.host is host else waiting.due
                heapq.heapify(self._waiting)

    def _seconds_to_wait(self) -> float:
        if self._outcomes or self._shutdown.requested or not self._left:
            return 0.0
        now = time.monotonic()
        times = [self._next_report]
        times += [fetch.due for fetch in self._waiting[:1]]
        times += [host.resume_at for host in self._hosts if host.resume_at > now]
        return max(min(times) - now, 0.0)

    @property
    def _next_report(self) -> float:
        return self._reported_at + max(self._reported_at - self._began, PROGRESS_AFTER)

    def _report(self) -> None:
        if time.monotonic() >= self._next_report:
            self._reported_at = time.monotonic()
            self._logger.info(
                "progress: %d of %d accounts done (%d failed)",
                self._total - self._left,
                self._total,
                self._failed,
            )


def _defect(error: Exception) -> AccountError:
    """Turn a defect of the tap into an error; its text is left out, since it may hold a secret."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" at line {place.tb_lineno} of {place.tb_frame.f_code.co_filename}" if place else ""
    return AccountError(
        f"the tap failed with {type(error).__name__}{where}",
        "This is a defect; please report this line.",
    )


_SAME_SIGNAL = 2.0
"""Seconds in which another signal is the same one: Meltano and process groups send two."""

_READER_GRACE = 10.0
"""Seconds that a reader of stdout has to take what is being written when a signal comes."""


class Shutdown:
    """Whether a signal has requested the end of this run.

    A signal must not cut a message on stdout in two, so its handler only records it and wakes the
    main thread up; the run ends where that looks (`check`).
    """

    def __init__(self) -> None:
        self.requested = False
        self.wake: Callable[[], None] = lambda: None
        """Ends what the main thread waits for."""
        self._requested_at = 0.0
        self._exit_status = 0
        self._message = ""
        self._interrupting = False

    def handle_signal(self, signum: int) -> None:
        """End the run in order; another signal after two seconds ends the process on the spot.

        Raises:
            RunEndedError: The main thread was waiting for a response itself.
        """
        if self.requested:
            if time.monotonic() - self._requested_at > _SAME_SIGNAL:
                os._exit(self._exit_status)
            return
        self._requested_at = time.monotonic()
        self._exit_status = 128 + signum
        self._message = f"terminated by {signal.Signals(signum).name}"
        self.requested = True
        if hasattr(signal, "setitimer"):
            # Only a reader that stopped reading can keep the main thread from coming to an end.
            signal.signal(signal.SIGALRM, lambda *_: os._exit(self._exit_status))
            signal.setitimer(signal.ITIMER_REAL, _READER_GRACE)
        self.wake()
        if self._interrupting:
            self.check()

    def check(self) -> None:
        """Raise if the run is to end.

        Raises:
            RunEndedError: It is.
        """
        if self.requested:
            raise RunEndedError(self._message, self._exit_status)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal end, at once, what the main thread does inside."""
        self._interrupting = True
        try:
            self.check()
            yield
        finally:
            self._interrupting = False
