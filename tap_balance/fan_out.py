"""Many accounts at once, in a bounded pool, with the results in the order of the settings."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from tap_balance.errors import AccountError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from tap_balance.accounts import Account
    from tap_balance.answers import Answer
    from tap_balance.progress import Progress
    from tap_balance.shutdown import Shutdown

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
