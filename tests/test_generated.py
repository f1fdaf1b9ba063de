"""Generated input: whatever the API answers or the settings say, no wrong row, no secret, no crash.

Each case is a whole run of the command, in this process for the sake of speed. By default the
cases are the same every time; `pytest --hypothesis-profile=explore tests/test_generated.py`
looks at new ones.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import re
import signal
from fractions import Fraction
from importlib import metadata
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import requests_mock
from clock import standing_still
from documented import SMS
from fault_server import FaultServer, http, read_request
from faults import DEV_KEY, DEV_SECRET, GOOD, SECRETS
from fetching import mocked_api
from generators import MARK, bodies, configs, heads, in_64_bits, payloads, written
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import NO_PROXY
from tap_process import Run

from tap_balance.cli import run as run_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Tally

pytestmark = pytest.mark.slow

BODIES, HEADERS, CONFIGS = 6_000, 2_500, 2_500
INTEGERS = ("balance10000", "gift_balance10000", "total_balance10000")
DECIMALS = ("balance", "gift_balance", "total_balance")


def test_at_least_10_000_cases_are_generated() -> None:
    assert BODIES + HEADERS + CONFIGS >= 10_000


@pytest.fixture(scope="module", autouse=True)
def untouched_process() -> Iterator[None]:
    """Give back what a run changes in its process, and let no retry wait."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    propagate = {name: logging.getLogger(name).propagate for name in ("urllib3", "requests")}
    with (
        standing_still(),
        mock.patch.dict(os.environ, NO_PROXY),
        mock.patch.object(logging, "shutdown"),
        # The SDK reads the versions of packages from disk three times a run.
        mock.patch.object(metadata, "version", functools.cache(metadata.version)),
    ):
        yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    for name, value in propagate.items():
        logging.getLogger(name).propagate = value


def run_here(*arguments: str) -> Run:
    root = logging.getLogger()
    before, root.handlers[:] = list(root.handlers), []
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        status = run_process(arguments)
    root.handlers[:] = before
    return Run(status, stdout.getvalue(), stderr.getvalue())


def check(run: Run, accounts: int = 1) -> None:
    """Check what holds for every run."""
    assert run.status in {0, 1}
    assert "Traceback" not in run.stderr
    assert "This is a defect" not in run.stderr
    assert bool(run.errors) == (run.status == 1)
    records = run.records
    assert len(records) <= accounts
    kinds = [message["type"] for message in run.messages]
    if kinds:
        assert kinds == ["SCHEMA", *["RECORD"] * len(records), "STATE"]
    for record in records:
        for whole, decimal in zip(INTEGERS, DECIMALS, strict=True):
            assert type(record[whole]) is int
            assert -(2**63) <= record[whole] < 2**63
            assert re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]{4}", record[decimal])
            assert Fraction(record[decimal]) == Fraction(record[whole], 10_000)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer([()]) as server:
        yield server


@pytest.fixture(scope="module", params=["sms", "otp"])
def product(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config_for(server: FaultServer, folder: Path, **more: object) -> str:
    path = folder / "config.json"
    url = f"http://127.0.0.1:{server.port}"
    config = {"dev_key": DEV_KEY, "dev_secret": DEV_SECRET, "base_url": url, "max_attempts": 2}
    path.write_text(json.dumps(config | more))
    return str(path)


class Pairs(list[tuple[str, Any]]):
    """An object with its names as often as they are in it."""


def amounts_in(body: bytes, product: str) -> tuple[int, ...] | None:
    """Read the amounts in a way of its own: exact fractions, no limits, nothing forgiven."""

    def number(text: str) -> Fraction | None:
        exponent = re.search(r"[eE]([+-]?[0-9]+)$", text)
        return None if exponent and abs(int(exponent[1])) > 400 else Fraction(text)

    try:
        found = json.loads(
            body, parse_int=number, parse_float=number, parse_constant=str, object_pairs_hook=Pairs
        )
    except ValueError:
        return None
    if not isinstance(found, Pairs) or len(dict(found)) != len(found):
        return None
    answer = dict(found)
    scale, fields = (1, INTEGERS) if product == "sms" else (10_000, DECIMALS)
    amounts = []
    for field in fields:
        value = answer.get(field)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value, re.ASCII):
            value = Fraction(value)
        if not isinstance(value, Fraction) or (value * scale).denominator != 1:
            return None
        amounts.append(int(value * scale))
    return tuple(amounts) if all(-(2**63) <= value < 2**63 for value in amounts) else None


def test_a_body_becomes_a_record_only_if_it_holds_the_amounts(
    server: FaultServer, tmp_path: Path, tally: Tally, product: str
) -> None:
    path = config_for(server, tmp_path, product=product)

    @settings(max_examples=BODIES // 2)
    @given(bodies)
    def a_run_is_right(body: bytes) -> None:
        tally.generated += 1
        server.scripts = [http(200, body)]
        run = run_here("--config", path)
        check(run)
        if run.status == 0:
            (record,) = run.records
            right = tuple(record[name] for name in INTEGERS) == amounts_in(body, product)
            tally.wrong_rows += not right
            assert right
        else:
            assert run.records == []

    a_run_is_right()


@settings(max_examples=500)
@given(amounts=st.tuples(in_64_bits, in_64_bits, in_64_bits), data=st.data())
def test_every_amount_of_64_bits_comes_out(
    server: FaultServer,
    tmp_path_factory: pytest.TempPathFactory,
    tally: Tally,
    amounts: tuple[int, int, int],
    data: st.DataObject,
) -> None:
    tally.generated += 1
    pairs = [(name, str(value)) for name, value in zip(INTEGERS, amounts, strict=True)]
    pairs += [(name, repr(value / 10_000)) for name, value in zip(DECIMALS, amounts, strict=True)]
    body = written(data.draw(st.permutations(pairs)))
    server.scripts = [http(200, body.encode())]
    run = run_here("--config", config_for(server, tmp_path_factory.getbasetemp()))
    check(run)
    assert run.status == 0
    assert [tuple(record[name] for name in INTEGERS) for record in run.records] == [amounts]


def test_no_head_makes_a_wrong_row_or_a_crash(
    server: FaultServer, tmp_path: Path, tally: Tally
) -> None:
    path = config_for(server, tmp_path, request_timeout=5)

    @settings(max_examples=HEADERS)
    @given(heads, payloads)
    def a_run_is_right(head: bytes, payload: bytes) -> None:
        tally.generated += 1
        server.scripts = [(read_request, head + payload)]
        run = run_here("--config", path)
        check(run)
        found = [form for form, secret in SECRETS.items() if secret in run.stdout + run.stderr]
        tally.secrets += len(found)
        assert found == []
        if run.status == 0:
            (record,) = run.records
            right = tuple(record[name] for name in INTEGERS) == GOOD
            tally.wrong_rows += not right
            assert right

    a_run_is_right()


def test_wrong_settings_are_refused_without_being_shown_and_before_anything_is_sent(
    tmp_path: Path, tally: Tally
) -> None:
    path = tmp_path / "config.json"

    @settings(max_examples=CONFIGS)
    @given(configs, st.booleans())
    def a_run_is_right(config: Any, from_environment: bool) -> None:  # noqa: ANN401, FBT001
        tally.generated += 1
        variables = {}
        if from_environment and isinstance(config, dict):
            variables = {
                f"TAP_BALANCE_{name.upper()}": text
                for name, value in config.items()
                if name.isidentifier()
                and "\0" not in (text := value if isinstance(value, str) else json.dumps(value))
            }
        path.write_text(json.dumps(config))
        with mock.patch.dict(os.environ, variables), mocked_api() as api:
            api.register_uri("GET", requests_mock.ANY, json=SMS)
            run = run_here("--config", "ENV" if variables else str(path))
        listed = config.get("accounts") if isinstance(config, dict) else None
        accounts = listed if listed and isinstance(listed, list) else [config]
        check(run, len(accounts))
        shown = MARK in re.sub(r"account '.*?':", "", run.stderr)
        tally.secrets += shown
        assert not shown
        if "Invalid settings; no requests were sent." in run.errors:
            assert api.call_count == 0
            assert run.stdout == ""
        else:
            assert api.call_count == len(accounts)
            wrong = [r for r in run.records if tuple(r[name] for name in INTEGERS) != GOOD]
            tally.wrong_rows += len(wrong)
            assert wrong == []
            assert (len(run.records) == len(accounts)) == (run.status == 0)

    a_run_is_right()
