"""The real parts that the tests run against: a sandbox, the tap's process, a Postgres, Meltano."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import embedded
import pytest
from bank import Bank
from hypothesis import HealthCheck, settings
from parts import NO_PROXY, REAL_SNOWFLAKE, ROOT
from runners import Meltano
from snowflake_target import SnowflakeServer, emulated_snowflake
from xdist.scheduler import LoadScopeScheduling

from tap_balance.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


NO_CA = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"), "")


settings.register_profile(
    "repeatable",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("explore", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")


@dataclass(frozen=True)
class Run:
    """What one run of the tap left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [message["record"] for message in self.of_type("RECORD")]

    @property
    def errors(self) -> list[str]:
        lines = self.stderr.splitlines()
        return [line.split(" | ", 3)[3] for line in lines if "| ERROR " in line]


@dataclass
class Tally:
    """What the tests of faults and of generated input have seen."""

    faults: int = 0
    as_expected: int = 0
    wrong_rows: int = 0
    secrets: int = 0
    generated: int = 0
    stops: list[float] = field(default_factory=list)
    """Seconds from a signal to the end of a process that waited a minute for its next try."""


_TALLY = pytest.StashKey[Tally]()
_STORED = pytest.StashKey[dict[tuple[str, str], str]]()
"""What the tests of the destinations found: (check, destination) -> a few words."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()
    config.stash[_STORED] = {}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash[_TALLY]
    if tally.faults or tally.generated:
        terminalreporter.section("never a wrong row, never a lost one, never a secret")
        terminalreporter.line(
            f"faults tried: {tally.faults}, as expected: {tally.as_expected}, "
            f"wrong rows: {tally.wrong_rows}, secrets found: {tally.secrets}, "
            f"generated cases: {tally.generated}"
        )
    if tally.stops:
        terminalreporter.line(
            f"waits of 60 s that a signal ended: {len(tally.stops)}, "
            f"the slowest {max(tally.stops):.2f} s after it"
        )

    if stored := config.stash[_STORED]:
        terminalreporter.section("what is stored, by check and destination")
        for line in table(stored):
            terminalreporter.line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what one of the processes of pytest-xdist has seen over to the first."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tally"] = asdict(session.config.stash[_TALLY])
        output["stored"] = [[*key, words] for key, words in session.config.stash[_STORED].items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - pytest-xdist ships no types
    output = getattr(node, "workeroutput", {})
    tally = node.config.stash[_TALLY]
    for name, seen in output.get("tally", {}).items():
        setattr(tally, name, getattr(tally, name) + seen)
    for check, destination, words in output.get("stored", []):
        node.config.stash[_STORED][check, destination] = words


def table(cells: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Lay out what was found: a block for each check, the same words together."""
    for check in dict.fromkeys(check for check, _ in cells):
        by_words: dict[str, list[str]] = {}
        for (of, destination), words in cells.items():
            if of == check:
                by_words.setdefault(words, []).append(destination)
        for number, (words, labels) in enumerate(by_words.items()):
            yield f"{check if number == 0 else '':<22}{words:<54}{', '.join(sorted(labels))}"


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash[_TALLY]


@pytest.fixture(scope="session")
def stored(pytestconfig: pytest.Config) -> dict[tuple[str, str], str]:
    return pytestconfig.stash[_STORED]


@pytest.fixture
def run_tap(tmp_path: Path) -> Callable[..., Run]:
    def run(
        config: Mapping[str, Any] | None = None,
        *arguments: str,
        env: Mapping[str, str] | None = None,
    ) -> Run:
        command = [sys.executable, "-m", "tap_balance", *arguments]
        if config is not None:
            path = tmp_path / "config.json"
            path.write_text(json.dumps(config), encoding="utf-8")
            command += ["--config", str(path)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=False,
            env=os.environ | NO_PROXY | dict(env or {}),
        )
        return Run(done.returncode, done.stdout, done.stderr)

    return run


@contextmanager
def serving(server: Sandbox) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield
    server.shutdown()
    thread.join()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as server, serving(server):
        yield server


@pytest.fixture(scope="session")
def bank() -> Iterator[Bank]:
    with Bank() as server, serving(server):
        yield server


@pytest.fixture(scope="session")
def snowflake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SnowflakeServer]:
    """The emulator, or with `make check-snowflake` a real account."""
    if REAL_SNOWFLAKE:
        with closing(SnowflakeServer(REAL_SNOWFLAKE)) as server:
            yield server
        return
    with emulated_snowflake(tmp_path_factory.mktemp("emulator")) as server:
        yield server


@pytest.fixture(scope="session")
def meltano_project(meltano: None, tmp_path_factory: pytest.TempPathFactory) -> Meltano:
    assert meltano is None
    return Meltano(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded.Postgres]:
    # Not below pytest's own folder: another pytest that starts meanwhile closes that to others,
    # and so to the server, which does not run as root.
    with (
        tempfile.TemporaryDirectory(prefix="tap-balance-") as folder,
        embedded.postgres(Path(folder) / "data") as server,
    ):
        yield server


class Spread(LoadScopeScheduling):
    """How pytest-xdist spreads the tests over its processes.

    Those of the demos and of Airflow write to the same folders, so they stay in one process; those
    of dbt share what takes long to make. (The marks of `--dist loadgroup` do nothing: pytest 9.2
    does not read where pytest-xdist 3.8 writes.)
    """

    def _split_scope(self, nodeid: str) -> str:
        together = re.search(r"test_(airflow|demo|transform)\.py", nodeid)
        return together[1].replace("demo", "airflow") if together else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:  # noqa: ANN401
    return Spread(config, log)


@pytest.fixture(scope="session")
def meltano() -> None:
    """The real Meltano in this repository, its plugins installed."""
    assert (ROOT / ".meltano" / "ready").exists(), "make .meltano/ready installs the plugins"


@contextmanager
def started(settings: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[str]]:
    config = folder / "config.json"
    config.write_text(json.dumps(settings))
    with subprocess.Popen(
        [sys.executable, "-m", "tap_balance", "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()
