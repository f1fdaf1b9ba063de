"""A stand-in for the balance API on this machine, to try the tap without credentials."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tap_balance.accounts import ENDPOINT
from tap_balance.amounts import exact_decimal
from tap_balance.config import Product

DEFAULT_PORT = 8642
SECRET = "sandbox-secret"  # noqa: S105 - the sandbox's own, and no secret
EXAMPLE = {"balance10000": 123456, "gift_balance10000": 20000}
"""The sample answer of "EngageLab SMS: Query Balance", without what follows from it."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A balance that is spent as time passes and topped up before it runs out.

    Attributes:
        product: Which body the account answers with.
        per_second: What is spent in a second, x10000.
        top_up: Amount of one top-up, x10000.
        lowest: The paid balance never falls to this, x10000.
        gift: Gift balance, x10000.
    """

    product: Product
    per_second: int
    top_up: int
    lowest: int
    gift: int

    def at(self, moment: int, seed: int, name: str) -> tuple[int, int]:
        """Compute the paid and the gift balance, both x10000.

        Args:
            moment: Seconds since the epoch. The same moment always gives the same balance.
            seed: Another seed gives other moments of topping up.
            name: Name of the account.
        """
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        spent = moment * self.per_second + int.from_bytes(digest[:4], "big")
        return self.lowest + self.top_up - spent % self.top_up, self.gift


DRAINS: dict[str, Drain] = {
    # A top-up about every 4 hours, every 10 hours and every hour.
    "main": Drain("sms", per_second=97, top_up=1_400_000, lowest=50_000, gift=20_000),
    "marketing": Drain("sms", per_second=1_370, top_up=50_000_000, lowest=1_000_000, gift=0),
    "otp": Drain("otp", per_second=11, top_up=40_000, lowest=10_000, gift=10_000),
}
FIXED: dict[str, tuple[int, int]] = {
    "example": (EXAMPLE["balance10000"], EXAMPLE["gift_balance10000"]),
    "empty": (0, 0),
    "overdrawn": (-5, 0),
    "largest": (2**63 - 1, 0),
    "smallest": (-(2**63), 0),
}
"""Accounts whose balance never changes: paid and gift balance, x10000."""

ERRORS: dict[str, tuple[int, int, str]] = {
    "internal-error": (500, 1000, "internal error, please try again later"),
    "wrong-token": (401, 2001, "invalid token"),
    "expired": (401, 2002, "token expired or disabled"),
    "deleted": (403, 2002, "the merchant has been deleted"),
    "no-permission": (403, 2004, "no permission to call this api"),
}
"""Accounts that answer one row each of "EngageLab SMS: Query Balance", table of errors."""


def dev_key(name: str) -> str:
    """Tell the API key of one of the sandbox's accounts; its secret is `SECRET`."""
    return f"sandbox-{name}"


def settings_of(base_url: str, *names: str) -> dict[str, Any]:
    """Make the settings of a tap that reads some of the sandbox's accounts.

    Args:
        base_url: Where the sandbox listens.
        names: Names of the accounts; without any, the ones that drain.
    """
    accounts = [
        {"account": name, "dev_key": dev_key(name), "dev_secret": SECRET}
        | ({"product": DRAINS[name].product} if name in DRAINS else {})
        for name in names or DRAINS
    ]
    return {"base_url": base_url, "currency": "USD", "accounts": accounts}


def answer_to(authorization: str | None, moment: int, seed: int) -> tuple[int, dict[str, Any]]:
    """Answer a request for a balance.

    Args:
        authorization: The request's `Authorization` header.
        moment: Seconds since the epoch.
        seed: Seed of the draining balances.

    Returns:
        The HTTP status and the body.
    """
    name = authenticate(authorization)
    if name in ERRORS:
        status, code, message = ERRORS[name]
        return status, {"code": code, "message": message}
    if name in FIXED:
        return 200, sms_body(*FIXED[name])
    if name in DRAINS:
        drain = DRAINS[name]
        body_of = sms_body if drain.product == "sms" else otp_body
        return 200, body_of(*drain.at(moment, seed, name))
    status, code, message = ERRORS["wrong-token"]
    return status, {"code": code, "message": message}


def authenticate(authorization: str | None) -> str:
    """Check HTTP Basic; return the account's name, or "" if the credentials are wrong."""
    scheme, _, token = (authorization or "").partition(" ")
    try:
        user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
    except ValueError:
        return ""
    known = scheme.lower() == "basic" and password == SECRET and user.startswith(dev_key(""))
    return user.removeprefix(dev_key("")) if known else ""


def sms_body(balance: int, gift_balance: int) -> dict[str, Any]:
    """Make the body that an `sms` account answers with; the amounts are x10000."""
    amounts = {
        "balance": balance,
        "gift_balance": gift_balance,
        "total_balance": balance + gift_balance,
    }
    body: dict[str, Any] = {}
    for field, value in amounts.items():
        body[f"{field}10000"] = value
        # As the API does: floating point, but a whole amount is a JSON integer.
        body[field] = value // 10_000 if value % 10_000 == 0 else value / 10_000
    return body


def otp_body(balance: int, gift_balance: int) -> dict[str, Any]:
    """Make the body that an `otp` account answers with; the amounts are x10000."""
    return {
        "currency": "USD",
        "balance": exact_decimal(balance),
        "gift_balance": exact_decimal(gift_balance),
        "total_balance": exact_decimal(balance + gift_balance),
    }


class Sandbox(ThreadingHTTPServer):
    """The server. It listens on loopback only.

    Args:
        port: Port, or 0 for any that is free.
        latency: Seconds that every answer is held back.
        seed: Seed of the draining balances.
    """

    daemon_threads = True
    # The default of five refuses connections when a tap opens 32 at once.
    request_queue_size = 128

    def __init__(self, port: int = 0, *, latency: float = 0.0, seed: int = 0) -> None:
        self.latency = latency
        self.seed = seed
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Where the sandbox listens, to be used as `base_url`."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Answer a request for a balance at this moment; see `answer_to`."""
        return answer_to(authorization, int(time.time()), self.seed)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body leave in one packet; otherwise Nagle's algorithm delays the second by 40 ms.
    wbufsize = -1
    server: Sandbox

    def do_GET(self) -> None:
        time.sleep(self.server.latency)
        if self.path == ENDPOINT:
            status, body = self.server.answer(self.headers.get("Authorization"))
        else:
            status, body = 404, {"code": 404, "message": f"no such path; ask {ENDPOINT}"}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Stay silent: stderr is for the hints at the start."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command: the config goes to stdout, everything for people to stderr."""
    parser = argparse.ArgumentParser(
        prog="tap-balance-sandbox",
        description="A stand-in for the EngageLab balance API, on this machine only. It prints a "
        "config for tap-balance on stdout and serves until it is interrupted.",
        epilog=f"Accounts that drain: {', '.join(DRAINS)}. Accounts that never change: "
        f"{', '.join(FIXED)}. Accounts that fail: {', '.join(ERRORS)}. The dev_key of each is "
        f"'{dev_key('NAME')}', the dev_secret is '{SECRET}'.",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes any that is free (%(default)s)"
    )
    parser.add_argument(
        "--latency", type=_seconds, default=0.0, metavar="SECONDS", help="hold back every answer"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the balances (%(default)s)")
    parser.add_argument(
        "--accounts",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=[*DRAINS, *FIXED, *ERRORS],
        help="accounts in the printed config (those that drain)",
    )
    options = parser.parse_args(args)
    try:
        server = Sandbox(options.port, latency=options.latency, seed=options.seed)
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on port {options.port}: {error}; --port 0 takes a free one")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with server:
        print(f"Sandbox at {server.url}; Ctrl-C ends it.", file=sys.stderr, flush=True)  # noqa: T201
        print(  # noqa: T201
            "Its config is on stdout; save it and try: tap-balance --config sandbox.json",
            file=sys.stderr,
            flush=True,
        )
        print(json.dumps(settings_of(server.url, *options.accounts), indent=2), flush=True)  # noqa: T201
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            sys.exit(130)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:  # noqa: PLR2004
        msg = "must be from 0 to 3600"
        raise argparse.ArgumentTypeError(msg)
    return seconds


if __name__ == "__main__":
    main()
