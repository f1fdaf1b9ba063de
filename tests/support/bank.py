"""A stand-in for the API whose accounts hold what a test says, and that can make some wait."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tap_balance.sandbox import ERRORS, SECRET, Sandbox, authenticate, dev_key, otp_body, sms_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from socketserver import BaseServer


@dataclass(frozen=True)
class Account:
    """An account of the bank.

    Attributes:
        name: Name that its records carry.
        balance10000: Paid balance, x10000.
        currency: What the settings say; an `otp` account answers with USD.
        error: Key of the sandbox's `ERRORS` that it answers with, instead of a balance.
    """

    name: str
    balance10000: int = 123456
    gift_balance10000: int = 0
    product: str = "sms"
    currency: str | None = None
    error: str | None = None


class Bank(Sandbox):
    """The server; `settings` opens accounts and tells the tap's settings for them."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        """Requests so far."""
        self._accounts: dict[str, Account] = {}
        self._held: set[str] = set()
        self._let_go = threading.Event()

    def settings(self, accounts: Sequence[Account]) -> dict[str, Any]:
        entries = []
        for account in accounts:
            number = f"account{len(self._accounts)}"
            self._accounts[number] = account
            entry = {
                "account": account.name,
                "dev_key": dev_key(number),
                "dev_secret": SECRET,
                "product": account.product,
            }
            entries.append(entry | ({"currency": account.currency} if account.currency else {}))
        return {"base_url": self.url, "snapshot_interval": "PT1H", "accounts": entries}

    @contextmanager
    def holding(self, *names: str) -> Iterator[list[str]]:
        """Let the accounts of these names wait for their answer; yields the names that wait."""
        self._let_go.clear()
        self._held = set(names)
        self._waiting: list[str] = []
        try:
            yield self._waiting
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Answer all that wait."""
        self._held = set()
        self._let_go.set()

    def answer(self, authorization: str | None) -> tuple[int, dict[str, Any]]:
        self.requests += 1
        account = self._accounts[authenticate(authorization)]
        if account.name in self._held:
            self._waiting.append(account.name)
            self._let_go.wait(60)
        if account.error is not None:
            status, code, message = ERRORS[account.error]
            return status, {"code": code, "message": message}
        body_of = sms_body if account.product == "sms" else otp_body
        return 200, body_of(account.balance10000, account.gift_balance10000)


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Let a server answer in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
