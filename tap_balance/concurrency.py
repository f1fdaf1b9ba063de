"""Many accounts at once: as they complete, each host on its own, until a signal ends the run."""

from __future__ import annotations

import heapq
import logging
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NamedTuple, TypeAlias

from tap_balance.accounts import Account
from tap_balance.client import Balance, BalanceClient
from tap_balance.errors import (
    CHECK_NETWORK,
    TOO_MANY,
    AccountError,
    RetriableError,
    RunEndedError,
    defect,
)

Outcome: TypeAlias = "Balance | AccountError"

# Accounts in a row that could not connect, in all their attempts, after which a host is down; the
# second is for a host that could be reached before.
_FAILURES, _FAILURES_AFTER_A_CONNECTION = 3, 32
# Seconds in which another signal is the same one: Meltano and process groups send two.
_SAME_SIGNAL = 2.0
# Seconds that a reader of stdout has to take what is being written when a signal comes.
_READER_GRACE = 10.0


class Limits(NamedTuple):
    """How much a run may do, from the settings of the same names."""

    request_timeout: float
    max_attempts: int
    max_elapsed: float
    max_concurrency: int


def fetch_all(
    client: BalanceClient,
    accounts: Sequence[Account],
    limits: Limits,
    shutdown: Shutdown,
    logger: logging.Logger,
) -> Iterator[tuple[Account, Outcome]]:
    """Request the balances of all accounts, and yield each account as it completes.

    An account that waits for its next attempt holds no place in the pool, and a host that is down,
    slow or rate limiting holds back its own accounts only.

    Raises:
        RunEndedError: A signal came. What was complete has been yielded; requests in flight are
            abandoned.
    """
    pool = _Pool(client, min(limits.max_concurrency, len(accounts)))
    queue = _Queue(accounts, limits)
    shutdown.wake = pool.wake
    done = 0
    try:
        while done < len(accounts):
            if not shutdown.end:
                while pool.has_place and (fetch := queue.next()):
                    pool.submit(fetch)
            elif not queue.complete:
                raise shutdown.end
            if queue.complete:
                done += 1
                yield queue.complete.popleft()
            idle = not (queue.complete or shutdown.end or done == len(accounts))
            wait = queue.wait() if idle and pool.has_place else float("inf")
            for fetch in pool.finished(wait if idle else 0.0):
                queue.settle(fetch)
                if isinstance(fetch.outcome, AccountError):
                    attempt = fetch.account.name, fetch.attempts, fetch.outcome
                    logger.debug("account %r: attempt %d: %s", *attempt)
        if shutdown.end:
            raise shutdown.end
    finally:
        pool.close()
        client.close()


@dataclass(eq=False, slots=True)
class _Host:
    """What the run knows about a host and port."""

    name: str
    accounts: deque[Account] = field(default_factory=deque)  # those without an attempt so far
    pending: int = 0  # accounts with an attempt that are not complete
    in_flight: int = 0
    resume_at: float = 0.0  # when it allows requests again, on the monotonic clock
    exhausted: int = 0  # accounts in a row that could not connect in all their attempts
    enough: int = _FAILURES  # such accounts after which it is down
    failures: int = 0  # attempts in a row that could not connect
    slow: bool = False  # whether it had no response

    @property
    def down(self) -> bool:
        return self.exhausted >= self.enough

    @property
    def doubtful(self) -> bool:
        """Whether the accounts that are pending will find out if it is down."""
        return self.failures >= self.enough <= self.pending

    def record(self, outcome: Outcome) -> None:
        error = outcome if isinstance(outcome, AccountError) else None
        unreachable = error is not None and error.unreachable
        self.failures = self.failures + 1 if unreachable else 0
        self.slow = error is not None and (error.unreachable or error.timed_out)
        if not unreachable:
            self.exhausted = 0
            self.enough = _FAILURES_AFTER_A_CONNECTION
        if error and error.rate_limited and error.retry_after:
            self.resume_at = max(self.resume_at, time.monotonic() + error.retry_after)


@dataclass(eq=False, slots=True)
class _Fetch:
    """An account with at least one attempt."""

    account: Account
    host: _Host
    attempts: int = 0
    elapsed: float = 0.0  # seconds of the attempts, and of the waits between them
    due: float = 0.0  # when the next one may begin, on the monotonic clock
    seconds: float = 0.0  # that the next one may take, and then those that it took
    outcome: Outcome | None = None

    def __lt__(self, other: _Fetch) -> bool:
        return self.due < other.due


class _Queue:
    """Decides which account is next, and what follows from how its attempt ended."""

    def __init__(self, accounts: Sequence[Account], limits: Limits) -> None:
        self.complete: deque[tuple[Account, Outcome]] = deque()
        self._limits = limits
        hosts: dict[str, _Host] = {}
        for account in accounts:
            hosts.setdefault(account.host, _Host(account.host)).accounts.append(account)
        self._hosts = list(hosts.values())  # those with accounts that had no attempt
        self._waiting: list[_Fetch] = []  # a heap
        # An attempt after one that timed out may take all its time again, so it comes last.
        self._timed_out: deque[_Fetch] = deque()

    def wait(self) -> float:
        """Return the seconds until `next` may find more, if no attempt ends before."""
        now = time.monotonic()
        times = [fetch.due for fetch in self._waiting[:1]]
        times += [host.resume_at for host in self._hosts if host.resume_at > now]
        return max(min(times, default=float("inf")) - now, 0.0)

    def next(self) -> _Fetch | None:
        """Take the account whose attempt is to begin."""
        now = time.monotonic()
        while found := self._due(now) or self._new(now):
            pause = found.host.resume_at - now
            if isinstance(found.outcome, RetriableError) and (found.host.down or pause > 0):
                self._wait_or_complete(found, found.outcome, pause)
                continue
            left = self._limits.max_elapsed - found.elapsed
            found.seconds = min(self._limits.request_timeout, left)
            found.host.in_flight += 1
            return found
        return None

    def _due(self, now: float) -> _Fetch | None:
        """Take an account whose next attempt is due, but those whose last one timed out."""
        while self._waiting and self._waiting[0].due <= now:
            fetch = heapq.heappop(self._waiting)
            if not (isinstance(fetch.outcome, AccountError) and fetch.outcome.timed_out):
                return fetch
            self._timed_out.append(fetch)
        return None

    def _new(self, now: float) -> _Fetch | None:
        """Take an account that has had no attempt, or, where there is none, one that timed out.

        It is one of the host with the fewest attempts in flight, so that hosts share the places.
        A host that did not respond comes last.
        """
        self._hosts = [host for host in self._hosts if host.accounts]
        ready = [host for host in self._hosts if host.resume_at <= now and not host.doubtful]
        if not ready:
            return self._timed_out.popleft() if self._timed_out else None
        host = min(ready, key=lambda host: (host.slow, host.in_flight))
        host.pending += 1
        return _Fetch(host.accounts.popleft(), host)

    def _exhausted(self, error: RetriableError, attempts: int, seconds: float) -> AccountError:
        """Make the error of an account whose attempts or time have run out."""
        plural = "" if attempts == 1 else "s"
        happened = f"{error.happened} ({attempts} attempt{plural} in {seconds:.1f} s"
        wait = error.retry_after
        if wait is not None and seconds + wait >= self._limits.max_elapsed:
            happened += f"; the server asked to wait {wait:.0f} s, longer than max_elapsed"
        return RetriableError(f"{happened})", error.next_step, unreachable=error.unreachable)

    def settle(self, fetch: _Fetch) -> None:
        """Decide what follows from an attempt that has ended."""
        assert fetch.outcome is not None  # noqa: S101
        host = fetch.host
        host.in_flight -= 1
        fetch.attempts += 1
        fetch.elapsed += fetch.seconds
        host.record(fetch.outcome)
        pause = host.resume_at - time.monotonic()
        if pause >= self._limits.max_elapsed:
            happened = f"{host.name} is rate limiting (it sent Retry-After for another account)"
            limited = RetriableError(happened, TOO_MANY, retry_after=pause)
            self._skip_others(host, self._exhausted(limited, 0, 0.0))
        if isinstance(fetch.outcome, RetriableError):
            self._wait_or_complete(fetch, fetch.outcome, _wait_after(fetch.outcome, fetch.attempts))
        else:
            self._complete(fetch, fetch.outcome)

    def _wait_or_complete(self, fetch: _Fetch, error: RetriableError, wait: float) -> None:
        more = fetch.attempts < self._limits.max_attempts and not fetch.host.down
        if more and fetch.elapsed + wait < self._limits.max_elapsed:
            fetch.elapsed += wait
            fetch.due = time.monotonic() + wait
            heapq.heappush(self._waiting, fetch)
        else:
            self._complete(fetch, self._exhausted(error, fetch.attempts, fetch.elapsed))

    def _complete(self, fetch: _Fetch, outcome: Outcome) -> None:
        host = fetch.host
        host.pending -= 1
        self.complete.append((fetch.account, outcome))
        if isinstance(outcome, AccountError) and outcome.unreachable:
            host.exhausted += 1
            if host.exhausted == host.enough:
                happened = (
                    f"skipped: {host.name} could not be reached for any of the previous accounts"
                )
                self._skip_others(host, AccountError(happened, CHECK_NETWORK))
                for waiting in self._waiting:
                    waiting.due = 0.0 if waiting.host is host else waiting.due
                heapq.heapify(self._waiting)  # they need not wait

    def _skip_others(self, host: _Host, error: AccountError) -> None:
        """Complete the accounts that had no attempt, by what others have found out."""
        self.complete.extend((account, error) for account in host.accounts)
        host.accounts.clear()


def _wait_after(error: RetriableError, attempts: int) -> float:
    """Return the seconds to wait: what the server asked for, otherwise more with each attempt."""
    if error.retry_after is not None:
        return error.retry_after
    # Half a second, one, two, ... and a random half, so that accounts do not all come back at once.
    return min(0.5 * 2.0 ** (attempts - 1), 30.0) + random.uniform(0, 0.5)  # noqa: S311


class _Pool:
    """Threads that make one attempt after the other."""

    def __init__(self, client: BalanceClient, size: int) -> None:
        self._client = client
        self._threads = self.in_flight = 0
        self._todo: SimpleQueue[_Fetch | None] = SimpleQueue()
        self._done: SimpleQueue[_Fetch | None] = SimpleQueue()
        # Not a ThreadPoolExecutor: where the system has no thread left, its `submit` raises, and
        # one of its threads still makes the request.
        with suppress(RuntimeError):
            for _ in range(size):
                threading.Thread(target=self._work, name="balance", daemon=True).start()
                self._threads += 1

    @property
    def has_place(self) -> bool:
        return self.in_flight < max(self._threads, 1)

    def submit(self, fetch: _Fetch) -> None:
        """Begin an attempt; without any thread, make it."""
        self.in_flight += 1
        if self._threads:
            self._todo.put(fetch)
        else:
            self._attempt(fetch)

    def finished(self, seconds: float) -> Iterator[_Fetch]:
        """Yield the attempts that have ended, waiting for the first of them at most so long."""
        wait = seconds > 0
        while True:
            try:
                fetch = self._done.get(wait, min(seconds, threading.TIMEOUT_MAX))
            except Empty:
                return
            wait = False
            if fetch is not None:
                self.in_flight -= 1
                yield fetch

    def wake(self) -> None:
        """End the waiting in `finished`; a signal's handler may call this."""
        self._done.put(None)

    def close(self) -> None:
        """Let the threads end after their attempts."""
        for _ in range(self._threads):
            self._todo.put(None)

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
            fetch.outcome = defect(error)
        fetch.seconds = time.monotonic() - began
        self._done.put(fetch)


class Shutdown:
    """Whether a signal has requested the end of this run.

    A signal must not cut a message on stdout in two, so its handler only records it and wakes the
    main thread up; the run ends where that looks.
    """

    def __init__(self) -> None:
        self.end: RunEndedError | None = None
        self.wake: Callable[[], None] = lambda: None
        """Ends what the main thread waits for."""
        self._requested_at = 0.0

    def handle_signal(self, signum: int, _: FrameType | None = None) -> None:
        """End the run in order; another signal after two seconds ends the process on the spot."""
        if self.end is None:
            self.end = RunEndedError(f"terminated by {signal.Signals(signum).name}", 128 + signum)
            self._requested_at = time.monotonic()
            if hasattr(signal, "setitimer"):
                # Only a reader that stopped reading can keep the main thread from an end.
                signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + signum))
                signal.setitimer(signal.ITIMER_REAL, _READER_GRACE)
            self.wake()
        elif time.monotonic() - self._requested_at > _SAME_SIGNAL:
            os._exit(self.end.exit_status)
