"""The sandbox: it answers as the provider's pages say, and the command prints a config for it."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys

import pytest
import requests

from tap_balance.amounts import read_otp, read_sms
from tap_balance.sandbox import ERRORS, SECRET, Sandbox, answer_to

MOMENT = 1_770_000_000


def basic(user: str, password: str = SECRET) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_the_example_is_the_documented_answer() -> None:
    assert answer_to(basic("sandbox-example"), MOMENT, 0) == (
        200,
        {
            "balance10000": 123456,
            "gift_balance10000": 20000,
            "total_balance10000": 143456,
            "balance": 12.3456,
            "gift_balance": 2,
            "total_balance": 14.3456,
        },
    )


@pytest.mark.parametrize(
    ("name", "read"), [("main", read_sms), ("marketing", read_sms), ("otp", read_otp)]
)
def test_a_balance_drains_and_is_topped_up_again(name: str, read: type) -> None:
    day = [
        read(answer_to(basic(f"sandbox-{name}"), moment, 0)[1]).balance10000
        for moment in range(MOMENT, MOMENT + 86_400, 60)
    ]
    steps = [later - earlier for earlier, later in itertools.pairwise(day)]
    assert 0 not in steps
    spent = [step for step in steps if step < 0]
    assert len(set(spent)) == 1
    assert 1 <= len(steps) - len(spent) <= 24
    assert min(day) > 0


def test_the_same_seed_and_moment_give_the_same_balance_and_another_seed_another() -> None:
    key = basic("sandbox-main")
    assert answer_to(key, MOMENT, 1) == answer_to(key, MOMENT, 1)
    assert answer_to(key, MOMENT, 1) != answer_to(key, MOMENT, 2)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer x",
        "Basic !",
        basic("sandbox-main", "wrong"),
        basic("main"),
        basic("sandbox-nobody"),
        basic("sandbox-main").replace("Basic", "Digest"),
    ],
)
def test_wrong_credentials_are_refused_as_the_api_does(header: str | None) -> None:
    assert answer_to(header, MOMENT, 0) == (401, {"code": 2001, "message": "invalid token"})


@pytest.mark.parametrize("name", ERRORS)
def test_each_row_of_the_error_table_has_its_key(name: str) -> None:
    status, code, message = ERRORS[name]
    expected = (status, {"code": code, "message": message})
    assert answer_to(basic(f"sandbox-{name}"), MOMENT, 0) == expected


def test_it_listens_on_loopback_only() -> None:
    with Sandbox() as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_command_prints_a_config_that_works_and_ends_when_it_is_told() -> None:
    command = [sys.executable, "-m", "tap_balance.sandbox", "--port=0", "--latency=0.2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            text += process.stdout.readline()
        config = json.loads(text)
        first = config["accounts"][0]
        answer = requests.get(
            f"{config['base_url']}/v1/balance",
            auth=(first["dev_key"], first["dev_secret"]),
            proxies={"http": ""},
            timeout=10,
        )
        missing = requests.get(f"{config['base_url']}/v2", proxies={"http": ""}, timeout=10)
        process.terminate()
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 0
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.2
    assert missing.status_code == 404
    assert config["base_url"] in stderr
    assert "Traceback" not in stderr
