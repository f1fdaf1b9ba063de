"""Post new alerts, and alerts that are over, to Slack, Teams, mail or any other service of Apprise.

dbt reads `balance_alerts`. A state file records which service got which alert, so that each run
posts only what is missing: a failed delivery is repeated by the next run, a successful one is not.
The URLs of the services are secrets. They come from the environment variable APPRISE_URLS
(separated by spaces) or from a configuration file of Apprise, and are never printed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import sys
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import apprise
from dbt_show import show

if TYPE_CHECKING:
    from collections.abc import Iterator

ALERTS = """
select alert_id, account, reason, severity, state, message,
  '{{ target.name }} {{ ref("balance_alerts") }}' as origin
from {{ ref("balance_alerts") }}
order by case severity when 'error' then 0 else 1 end, account, reason
"""
STATE_HOME = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
KEPT = timedelta(days=90)
"""How long the state file remembers an alert that is no longer in `balance_alerts`."""

FILLED = 0.8
"""The part of a service's maximum size that a message uses; escaping makes it longer."""

LINE_LENGTH = 500
"""Characters of one alert at most."""

NAME_LENGTH = 60
"""Characters of an account's name in an error at most."""

LITERAL = str.maketrans({"<": "‹", ">": "›", "@": "＠"})  # noqa: RUF001
"""What begins a mention or a link somewhere. Names of accounts are free text; Apprise escapes what
Slack or Markdown would interpret, but not "@here" in the text of services that look for it."""

ASSET = apprise.AppriseAsset(
    app_id="tap-balance",
    app_desc="Prepaid balances",
    app_url="",
    image_url_mask="",  # no images from other hosts
    image_url_logo="",
    async_mode=False,
)


class NotifyError(Exception):
    """Nothing can be posted; the message says why and what to do."""


@dataclass(frozen=True)
class Alert:
    """A row of `balance_alerts`.

    Attributes:
        account: None where the alert is that there are no accounts.
        origin: The table, and dbt's target; a delivery is recorded for it.
    """

    alert_id: str
    account: str | None
    reason: str
    severity: str
    state: str
    message: str
    origin: str

    @property
    def is_over(self) -> bool:
        """Whether the alert has ended."""
        return self.state == "over"

    @property
    def name(self) -> str:
        """The account, for errors."""
        return _literal(self.account or "all accounts")[:NAME_LENGTH]

    @property
    def line(self) -> str:
        """The alert in one line without markup."""
        line = f"{'over' if self.is_over else 'new'}: {_literal(self.message)}"
        return line if len(line) <= LINE_LENGTH else f"{line[: LINE_LENGTH - 1]}…"


@dataclass(frozen=True)
class Service:
    """Where to post.

    Attributes:
        name: Its number and kind, for messages: its URL is a secret.
        url: Its URL.
        plugin: The object of Apprise that posts.
    """

    name: str
    url: str
    plugin: Any


NO_SERVICE = Service(
    "would post (no service is set)", "", SimpleNamespace(body_maxlen=float("inf"))
)
"""What a dry run prints for where there is none: everything."""


class State:
    """Which service got which alert, and when. The file contains no URLs.

    Args:
        path: The file; the first delivery creates it.

    Raises:
        NotifyError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            self._salt = str(content.get("salt") or secrets.token_hex(16))
            self._key = bytes.fromhex(self._salt)
            self._delivered: dict[str, dict[str, str]] = content.get("delivered", {})
        except OSError as error:
            msg = f"{path}: cannot be read ({error.strerror}); check its permissions"
            raise NotifyError(msg) from None
        except (ValueError, AttributeError):
            msg = (
                f"{path}: is not a state file of this command; restore it, or delete it to post "
                "every alert that is going on once more"
            )
            raise NotifyError(msg) from None

    def delivered(self, service: Service, origin: str) -> dict[str, str]:
        """Return the alerts that a service got from a table: `alert_id` and time of delivery."""
        text = f"{service.url}\n{origin}".encode()
        digest = hashlib.blake2b(text, key=self._key, digest_size=16).hexdigest()
        return self._delivered.setdefault(digest, {})

    def record(self, service: Service, posted: list[Alert], present: set[str]) -> None:
        """Record a delivery, and replace the file as a whole.

        Args:
            service: Where the alerts were posted.
            posted: The alerts.
            present: Every `alert_id` of `balance_alerts`; others are forgotten after 90 days.

        Raises:
            OSError: The file cannot be written.
        """
        now = datetime.now(tz=timezone.utc)
        for alert in posted:
            delivered = self.delivered(service, alert.origin)
            if alert.is_over:
                del delivered[alert.alert_id]
            else:
                delivered[alert.alert_id] = now.isoformat(timespec="seconds")
        oldest = (now - KEPT).isoformat(timespec="seconds")
        kept = {
            digest: {each: at for each, at in delivered.items() if each in present or at > oldest}
            for digest, delivered in self._delivered.items()
        }
        with tempfile.NamedTemporaryFile(
            "w", dir=self._path.parent, prefix=f"{self._path.name}-", delete=False
        ) as file:
            try:
                json.dump({"salt": self._salt, "delivered": kept}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(self._path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


class Reasons(logging.Handler):
    """Keeps of the log of Apprise what cannot contain a secret.

    Apprise logs URLs and messages. No other handler gets its records.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found: list[str] = []
        logger = logging.getLogger("apprise")
        logger.handlers = [self]
        logger.propagate = False
        # Without a handler, Python prints the warnings of other libraries itself.
        logging.getLogger().addHandler(logging.NullHandler())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the HTTP status, or that there was no connection."""
        text = record.getMessage()
        found = re.search(r"\berror=(\d{3})\b", text)
        if found:
            self._found.append(f"HTTP {found[1]}")
        elif "connection error" in text.lower():
            self._found.append("could not connect")
        else:
            self._found.append("")

    def take(self) -> list[str]:
        """Return what was kept since the last call, an empty text for each other record."""
        found, self._found = self._found, []
        return found


def main() -> int:
    """Post what is missing, and return the exit status."""
    # stderr is for errors; Meltano lets Python print every warning of a library, too.
    warnings.simplefilter("ignore")
    options = _options()
    reasons = Reasons()
    try:
        services = _services(options.config, reasons)
        if options.dry_run:
            state = State(options.state)
            _print(services or [NO_SERVICE], _alerts(options), state, options.min_severity)
            return 0
        if not services:
            msg = "no service to post to; set APPRISE_URLS or --config, or use --dry-run"
            raise NotifyError(msg)  # noqa: TRY301
        with _lock(options.state):
            state = State(options.state)
            alerts = _alerts(options)
            done = [
                _deliver(service, alerts, state, options.min_severity, reasons)
                for service in services
            ]
            return 0 if all(done) else 1
    except NotifyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _options() -> argparse.Namespace:
    beside = Path(sys.executable).with_name("dbt")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, help="configuration file of Apprise with the URLs of services"
    )
    parser.add_argument(
        "--state",
        type=lambda text: Path(text).expanduser(),
        default=f"{STATE_HOME}/tap-balance/notify.json",
        help="file that records what was posted (default: %(default)s)",
    )
    parser.add_argument(
        "--min-severity",
        choices=["warn", "error"],
        default="warn",
        help="lowest severity to post (default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be posted, and post nothing"
    )
    parser.add_argument(
        "--dbt", default=str(beside) if beside.exists() else "dbt", help="the dbt command"
    )
    parser.add_argument("--vars", default="{}", help="dbt variables, as for the models")
    return parser.parse_args()


def _alerts(options: argparse.Namespace) -> list[Alert]:
    return [Alert(**row) for row in show(options.dbt, ALERTS, options.vars)]


def _services(config: Path | None, reasons: Reasons) -> list[Service]:
    """Load the services of the environment and of the configuration file, each URL once.

    Raises:
        NotifyError: Apprise does not accept one of the URLs.
    """
    plugins = {}
    urls = re.split(r"\s+|,\s*(?=\w+://)", os.environ.get("APPRISE_URLS", "").strip())
    for number, url in enumerate(filter(None, urls), 1):
        plugins[url] = apprise.Apprise.instantiate(url, asset=ASSET, suppress_exceptions=True)
        if not plugins[url]:
            msg = (
                f"APPRISE_URLS: Apprise does not accept URL {number} of {len(urls)}; "
                "https://appriseit.com/services/ lists their forms"
            )
            raise NotifyError(msg)
    if config:
        plugins |= _configured(config, reasons)
    return [
        Service(f"service {number} ({plugin.service_name})", url, plugin)
        for number, (url, plugin) in enumerate(plugins.items(), 1)
    ]


def _configured(config: Path, reasons: Reasons) -> dict[str, Any]:
    try:
        config.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"--config: {config} cannot be read ({error.strerror})"
        raise NotifyError(msg) from None
    except ValueError:
        msg = f"--config: {config} is not UTF-8 text"
        raise NotifyError(msg) from None
    reasons.take()
    plugins = apprise.AppriseConfig(paths=[str(config.resolve())], asset=ASSET).services()
    if reasons.take() or not plugins:
        msg = (
            f"--config: Apprise does not accept every line of {config}; "
            "https://appriseit.com/services/ lists the forms of URLs"
        )
        raise NotifyError(msg)
    return {plugin.url(): plugin for plugin in plugins}


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep a second run from posting the same alerts.

    Raises:
        NotifyError: The folder of the state file cannot be written.
        SystemExit: Another run is active.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f"{path.name}.lock").open("w")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        msg = f"--state: {path.parent} cannot be written ({error.strerror})"
        raise NotifyError(msg) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another run is active (it holds {lock.name}); nothing to do", file=sys.stderr)
            sys.exit(0)
        yield


def _missing(
    service: Service, alerts: list[Alert], state: State, min_severity: str
) -> list[list[Alert]]:
    """List what a service has not got, in messages of a size that it accepts.

    That is an alert whose beginning it has not got, however long it has been going on, and the
    end of one whose beginning it has got.
    """
    missing = [
        alert
        for alert in alerts
        if alert.is_over == (alert.alert_id in state.delivered(service, alert.origin))
        and (alert.is_over or alert.severity == "error" or min_severity == "warn")
    ]
    messages: list[list[Alert]] = []
    left = 0.0
    for alert in sorted(missing, key=lambda alert: alert.is_over):
        if not messages or left < len(alert.line):
            messages.append([])
            left = service.plugin.body_maxlen * FILLED
        messages[-1].append(alert)
        left -= len(alert.line) + 1
    return messages


def _deliver(
    service: Service, alerts: list[Alert], state: State, min_severity: str, reasons: Reasons
) -> bool:
    """Post to a service what it has not got; return whether it has got everything now.

    Raises:
        NotifyError: A delivery cannot be recorded.
    """
    messages = _missing(service, alerts, state, min_severity)
    for number, message in enumerate(messages):
        if reason := _post(service, message, reasons):
            left = [each for rest in messages[number:] for each in rest]
            names = [f"{each.name} ({each.reason})" for each in left]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004
            print(
                f"error: {service.name}: not delivered ({reason}): {', '.join(names[:3])}{more}; "
                "the next run repeats this; if it persists, check the URL of the service",
                file=sys.stderr,
            )
            return False
        try:
            state.record(service, message, {alert.alert_id for alert in alerts})
        except OSError as error:
            msg = (
                f"{service.name}: {_title(message)}: delivered, but not recorded in the state file "
                f"({error.strerror}), so that the next run repeats it"
            )
            raise NotifyError(msg) from None
        print(f"{service.name}: {_title(message)}")
    return True


def _post(service: Service, message: list[Alert], reasons: Reasons) -> str:
    """Post one message; return why it failed, or nothing."""
    reasons.take()
    sender = apprise.Apprise(asset=ASSET)
    sender.add(service.plugin)
    posted = sender.notify(
        title=_title(message),
        body="\n".join(alert.line for alert in message),
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=_type(message),
    )
    if posted:
        return ""
    return next(filter(None, reasons.take()), "the service did not accept it")


def _type(message: list[Alert]) -> apprise.NotifyType:
    severities = {alert.severity for alert in message if not alert.is_over}
    if "error" in severities:
        return apprise.NotifyType.FAILURE
    return apprise.NotifyType.WARNING if severities else apprise.NotifyType.SUCCESS


def _title(message: list[Alert]) -> str:
    over = sum(alert.is_over for alert in message)
    counts = [(len(message) - over, "new"), (over, "over")]
    return "Prepaid balances: " + ", ".join(f"{count} {word}" for count, word in counts if count)


def _literal(text: str) -> str:
    """One line of plain text, which no service takes for a link, a mention or markup."""
    line = "".join(each if each.isprintable() else " " for each in text)
    line = " ".join(line.split()).translate(LITERAL)
    return line.replace("](", "] (").replace("://", ": //")


def _print(services: list[Service], alerts: list[Alert], state: State, min_severity: str) -> None:
    for service in services:
        messages = _missing(service, alerts, state, min_severity)
        for message in messages:
            print(f"{service.name}: {_title(message)}")
            for alert in message:
                print(f"  {alert.line}")
        if not messages:
            print(f"{service.name}: nothing new")


if __name__ == "__main__":
    sys.exit(main())
