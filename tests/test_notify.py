"""`transform/notify.py` as a process: what arrives at real servers, once each, without secrets.

dbt is a script here that prints rows; test_dbt_package.py posts the rows of the real one.
"""

from __future__ import annotations

import html
import json
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from bank import serving
from pages import doc
from parts import ROOT
from receivers import Mail
from webhooks import webhooks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhooks import Webhooks

pytestmark = pytest.mark.e2e

SECRET = "T0KENnotareal0ne"
MARKUP = "<!channel> @here [x](https://evil.example) <https://evil.example|x>\n& 'q' \"q\" \\ 🛒"
LITERAL = (
    "‹!channel› ＠here [x] (https: //evil.example) ‹https: //evil.example|x› & 'q' \"q\" \\ 🛒"  # noqa: RUF001
)


@dataclass
class Cron:
    """The command on one machine, with the alerts that dbt finds."""

    folder: Path
    hooks: Webhooks

    @property
    def state(self) -> Path:
        return self.folder / "state" / "notify.json"

    def url(self, path: str) -> str:
        return f"json://user:{SECRET}@127.0.0.1:{self.hooks.port}/{SECRET}/{path}"

    def alerts(self, *alerts: tuple[str, str, str]) -> None:
        """Let dbt find alerts: account, severity, state."""
        rows = [
            {
                "alert_id": f"{account} since yesterday",
                "account": account,
                "reason": "critical",
                "severity": severity,
                "state": state,
                "message": f"account {account} needs a top-up",
                "origin": "prod balance_alerts",
            }
            for account, severity, state in alerts
        ]
        (self.folder / "rows.json").write_text(json.dumps({"show": rows}))

    def start(
        self, *arguments: str, urls: str, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        dbt = self.folder / "dbt"
        dbt.write_text(f"#!/bin/sh\ntest -z \"$APPRISE_URLS\" && cat '{self.folder}/rows.json'\n")
        dbt.chmod(0o755)
        return subprocess.Popen(
            [
                ROOT / ".venvs" / "dbt" / "bin" / "python",
                ROOT / "transform" / "notify.py",
                f"--dbt={dbt}",
                f"--state={self.state}",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **(env or {}),
                "APPRISE_URLS": urls,
                "PYTHONWARNINGS": "once",  # as Meltano has it
            },
        )

    def run(
        self, *arguments: str, urls: str = "", status: int = 0, env: dict[str, str] | None = None
    ) -> list[str]:
        """Run the command; return the lines that it prints, which never have a secret in them."""
        process = self.start(*arguments, urls=urls, env=env)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == status, stdout + stderr
        assert SECRET not in stdout + stderr
        assert "Traceback" not in stderr
        assert bool(stderr) == bool(status)
        return (stderr or stdout).splitlines()

    def received(self) -> list[tuple[str, list[str]]]:
        """The last part of the path and the lines of each message since the last call."""
        return [
            (one.path.rpartition("/")[2], one.body["message"].splitlines())
            for one in self.hooks.taken()
        ]


@pytest.fixture
def cron(tmp_path: Path) -> Iterator[Cron]:
    with webhooks() as hooks:
        yield Cron(tmp_path, hooks)


def test_each_service_gets_the_beginning_and_the_end_of_an_alert_once(cron: Cron) -> None:
    # "ongoing" and not yet delivered: cron did not run when it was new. "over": nobody got it.
    cron.alerts(("shop", "error", "new"), ("blog", "warn", "ongoing"), ("app", "error", "over"))
    cron.hooks.statuses[f"/{SECRET}/b"] = 503
    urls = f"{cron.url('a')} {cron.url('b')} json://127.0.0.1:9/{SECRET}"
    begun = ["new: account shop needs a top-up", "new: account blog needs a top-up"]
    lines = cron.run(status=1, urls=urls)
    assert cron.received() == [("a", begun), ("b", begun)]
    assert lines == [
        f"error: service {number} (JSON): not delivered ({reason}): shop (critical), blog "
        "(critical); the next run repeats this; if it persists, check the URL of the service"
        for number, reason in ((2, "HTTP 503"), (3, "could not connect"))
    ]

    urls = f"{cron.url('a')} {cron.url('b')}"
    cron.hooks.statuses.clear()
    assert cron.run(urls=urls) == ["service 2 (JSON): Prepaid balances: 2 new"]
    assert cron.received() == [("b", begun)]
    assert SECRET not in cron.state.read_text()
    assert stat.S_IMODE(cron.state.stat().st_mode) == 0o600

    cron.alerts(("shop", "error", "over"), ("blog", "warn", "ongoing"), ("app", "error", "over"))
    cron.run(urls=urls)
    assert cron.received() == [(name, ["over: account shop needs a top-up"]) for name in "ab"]
    assert cron.run(urls=urls) == []
    assert cron.received() == []
    # A service that is added gets what is going on.
    cron.run(urls=f"{cron.url('a')} {cron.url('c')}")
    assert cron.received() == [("c", [begun[1]])]


def test_two_runs_at_once_post_an_alert_once(cron: Cron) -> None:
    cron.alerts(("shop", "error", "new"))
    cron.hooks.seconds = 1.5
    runs = [cron.start(urls=cron.url("a")) for _ in range(2)]
    printed = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert len(cron.received()) == 1
    assert sorted(stdout for stdout, _ in printed) == [
        "",
        "service 1 (JSON): Prepaid balances: 1 new\n",
    ]
    (other,) = (stderr for stdout, stderr in printed if not stdout)
    assert other == f"another run is active (it holds {cron.state}.lock); nothing to do\n"


def test_a_dry_run_prints_what_is_missing_and_posts_nothing(cron: Cron) -> None:
    cron.alerts(("shop", "error", "new"), ("blog", "warn", "new"))
    assert cron.run("--dry-run") == [
        "would post (no service is set): Prepaid balances: 2 new",
        "  new: account shop needs a top-up",
        "  new: account blog needs a top-up",
    ]
    assert not cron.state.parent.exists()

    urls = cron.url("a")
    cron.run("--min-severity=error", urls=urls)
    assert cron.received() == [("a", ["new: account shop needs a top-up"])]
    state = cron.state.read_text()
    assert cron.run("--dry-run", "--min-severity=error", urls=urls) == [
        "service 1 (JSON): nothing new"
    ]
    assert cron.run("--dry-run", urls=urls) == [
        "service 1 (JSON): Prepaid balances: 1 new",
        "  new: account blog needs a top-up",
    ]
    assert cron.received() == []
    assert cron.state.read_text() == state


def test_names_with_markup_mention_nobody_and_link_to_nothing(cron: Cron) -> None:
    cron.alerts((MARKUP, "error", "new"))
    with Mail() as mailbox, serving(mailbox):
        urls = {
            f"slack://T1JJ3T3L2/A1BRTD4JD/{SECRET}TIiajkd8/",
            f"workflows://teams.example/abcd/{SECRET}/",
            f"mailto://localhost:{mailbox.server_address[1]}/?from=cron@shop.example&to=ops@shop.example",
        }
        config = cron.folder / "services.conf"
        config.write_text("\n".join(sorted(urls)))
        proxy = cron.hooks.as_proxy(cron.folder)
        cron.run(f"--config={config}", env=proxy)
    posted = {one.host: one.body for one in cron.hooks.taken()}
    line = f"new: account {LITERAL} needs a top-up"

    slack = posted["hooks.slack.com"]
    (attachment,) = slack["attachments"]
    assert attachment["text"] == line.replace("&", "&amp;")  # as Slack wants it
    assert attachment["title"] == "Prepaid balances: 1 new"
    assert "link_names" not in slack

    (card,) = posted["teams.example"]["attachments"]
    text = card["content"]["body"][-1]["text"]
    assert re.sub(r"\\([!-/:-@[-`{-~])", r"\1", text) == line  # Markdown's escapes

    ((subject, mail),) = mailbox.received
    assert subject == "Prepaid balances: 1 new"
    assert html.unescape(mail).strip() == line


WRONG = {
    "no service": (
        [],
        "",
        "no service to post to; set APPRISE_URLS or --config, or use --dry-run",
    ),
    "url": (
        [],
        f"json://localhost slak://{SECRET}",
        (
            "APPRISE_URLS: Apprise does not accept URL 2 of 2; "
            "https://appriseit.com/services/ lists their forms"
        ),
    ),
    "config": (
        ["--config=wrong.conf"],
        "",
        (
            "--config: Apprise does not accept every line of wrong.conf; "
            "https://appriseit.com/services/ lists the forms of URLs"
        ),
    ),
    "no config": (
        ["--config=none.conf"],
        "",
        "--config: none.conf cannot be read (No such file or directory)",
    ),
    "no folder": (
        ["--state=/proc/no/state.json"],
        "json://localhost",
        "--state: /proc/no cannot be written (No such file or directory)",
    ),
    "state": (
        ["--state=wrong.conf"],
        "json://localhost",
        (
            "wrong.conf: is not a state file of this command; restore it, or delete it to post "
            "every alert that is going on once more"
        ),
    ),
}


@pytest.mark.parametrize(("arguments", "urls", "line"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line_without_secrets(
    cron: Cron, monkeypatch: pytest.MonkeyPatch, arguments: list[str], urls: str, line: str
) -> None:
    monkeypatch.chdir(cron.folder)
    (cron.folder / "wrong.conf").write_text(f"json://localhost\nslak://{SECRET}\n")
    cron.alerts(("shop", "error", "new"))
    assert cron.run(*arguments, status=2, urls=urls) == [f"error: {line}"]


def test_the_page_lists_the_options() -> None:
    done = subprocess.run(
        [ROOT / ".venvs" / "dbt" / "bin" / "python", ROOT / "transform" / "notify.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    table = doc("alerts").section("To Slack, Teams, a webhook or mail").split("| option |")[1]
    assert sorted(set(re.findall(r"--[a-z][a-z-]+", table))) == sorted(
        set(re.findall(r"--[a-z][a-z-]+", done.stdout)) - {"--help"}
    )
