"""Many accounts at once: the pool, what is known of their hosts, and how a run ends early."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from tap_balance.errors import AccountError, RunEndedError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from tap_balance.accounts import Account
    from tap_balance.responses import Answer

Outcome: TypeAlias = "Answer | AccountError"

_WINDOW = 16
"""Accounts per thread that may be ahead of the one whose turn it is."""


def fetch_all(
    fetch: Callable[[Account], Answer],
    accounts: Sequence[Account],
    *,
    max_concurrency: int,
    shutdown: Shutdown,
    progress: Progress,
) -> Iterator[tuple[Account, Outcome]]:
    """Ask for all accounts, and yield each with its answer or its error, in their order.

    Args:
        fetch: Asks for one account.
        accounts: Whom to ask for.
        max_concurrency: Requests in flight at most. For one account no thread is started.
        shutdown: What ends the waiting.
        progress: What tells how far it is.

    Raises:
        RunEndedError: The run is to end. Requests in flight are left to themselves.
    """
    threads = min(max_concurrency, len(accounts))
    if threads <= 1:
        for account in accounts:
            with shutdown.waiting():
                outcome = _outcome(fetch, account, progress)
            progress.tell()
            yield account, outcome
        return
    executor = ThreadPoolExecutor(threads, thread_name_prefix="balance")
    pending: deque[tuple[Account, Future[Outcome] | None]] = deque()
    remaining = iter(accounts)
    try:
        while True:
            for account in islice(remaining, threads * _WINDOW - len(pending)):
                pending.append((account, _submit(executor, fetch, account, progress)))
            if not pending:
                return
            account, future = pending.popleft()
            with shutdown.waiting():
                while future and not future.done():
                    wait([future], progress.seconds_left)
                    progress.tell()
                outcome = future.result() if future else _outcome(fetch, account, progress)
            progress.tell()
            yield account, outcome
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _submit(
    executor: ThreadPoolExecutor,
    fetch: Callable[[Account], Answer],
    account: Account,
    progress: Progress,
) -> Future[Outcome] | None:
    try:
        return executor.submit(_outcome, fetch, account, progress)
    except RuntimeError:
        # The system has no thread left. The main thread asks for this one when its turn comes.
        return None


def _outcome(fetch: Callable[[Account], Answer], account: Account, progress: Progress) -> Outcome:
    outcome: Outcome
    try:
        outcome = fetch(account)
    except AccountError as error:
        outcome = error
    except Exception as error:  # noqa: BLE001 - one account must not stop the others
        outcome = _defect(error)
    progress.count(failed=isinstance(outcome, AccountError))
    return outcome


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
