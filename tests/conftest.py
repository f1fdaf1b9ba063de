"""The real parts that the tests run against: a sandbox, the tap's process, a Postgres, Meltano."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import embedded
import marts
import pytest
from airflow_home import Airflow
from bank import Bank, serving
from deployment import Deployment
from found import found_in
from hypothesis import HealthCheck, settings
from meltano_project import forget_the_users_settings
from modelled import KINDS, model
from parts import REAL_SNOWFLAKE, ROOT
from runners import Meltano
from shared_dbt import DbtProcess
from snowflake_target import SnowflakeServer, emulated_snowflake
from tap_process import run_in
from warehouses import InPostgres, in_snowflake
from xdist.scheduler import LoadScopeScheduling

from tap_balance.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from found import Found
    from modelled import History
    from tap_process import Run


forget_the_users_settings()

settings.register_profile(
    "repeatable",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("explore", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")


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
    return partial(run_in, tmp_path)


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


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's database, empty."""
    folder = tmp_path_factory.mktemp("migrated")
    made = Airflow(folder, {}, {}, {}).run("db", "migrate")
    assert made.returncode == 0, made.stdout
    return folder / "airflow.db"


@pytest.fixture
def airflow_folder(airflow_database: Path, tmp_path: Path) -> Path:
    """A folder for an Airflow of its own."""
    folder = tmp_path / "airflow"
    folder.mkdir()
    shutil.copy(airflow_database, folder)
    return folder


@pytest.fixture
def deployment(
    airflow_folder: Path,
    sandbox: Sandbox,
    postgres: embedded.Postgres,
    request: pytest.FixtureRequest,
) -> Iterator[Deployment]:
    # Two runs of one day must not fall on either side of midnight.
    left = 86_400 - time.time() % 86_400
    if left < 90:
        time.sleep(left)
    database = re.sub(r"\W", "_", request.node.name)[:60]
    made = postgres.create_database(database)
    made.psql(f"ALTER DATABASE {database} SET timezone TO 'Asia/Shanghai'")
    yield Deployment(airflow_folder, sandbox, made, database)
    postgres.psql(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture(scope="session")
def in_postgres(postgres: embedded.Postgres) -> Iterator[Callable[[str], InPostgres]]:
    """Makes a database of this name, for dbt's models."""
    with closing(DbtProcess()) as dbt:
        yield partial(InPostgres, postgres, dbt)


@pytest.fixture(scope="session")
def modelled_histories(
    in_postgres: Callable[[str], InPostgres], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, History]]:
    """The history in each database; the two are made at once, since dbt keeps a core busy."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        snowflake = stack.enter_context(in_snowflake(folders["snowflake"]))
        modelled = pool.map(model, [in_postgres("transform"), snowflake], folders.values())
        yield dict(zip(KINDS, modelled, strict=True))


@pytest.fixture(scope="session")
def expected(modelled_histories: dict[str, History]) -> list[marts.Marts]:
    """What independent Python finds in the rows of each step, which are those of both."""
    postgres, snowflake = (
        [(build.rows, build.as_of) for build in history.builds]
        for history in modelled_histories.values()
    )
    assert postgres == snowflake
    return [marts.of(rows, as_of) for rows, as_of in postgres]


@pytest.fixture(scope="session")
def found(expected: list[marts.Marts]) -> dict[str, Found]:
    """What is in the last step."""
    return found_in(expected[-1])


@pytest.fixture(params=KINDS)
def history(request: pytest.FixtureRequest, modelled_histories: dict[str, History]) -> History:
    return modelled_histories[request.param]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: ("e2e" not in item.keywords, "slow" not in item.keywords))


class Spread(LoadScopeScheduling):
    """How pytest-xdist spreads the tests over its processes.

    Those of the demos and of Airflow write to the same folders, so they stay in one process; those
    of dbt share what takes long to make, those of the package for each version of dbt, and those of
    pages of many accounts apart; a process with one of the faults runs all of them. (The marks of
    `--dist loadgroup` do nothing: pytest 9.2 does not read where pytest-xdist 3.8 writes.)
    """

    def _split_scope(self, nodeid: str) -> str:
        if "::test_many_accounts" in nodeid:
            return "many accounts"
        if package := re.search(r"(test_dbt_package)\.py.*\[(1\.\d+)", nodeid):
            return " ".join(package.groups())
        shared = r"test_(airflow|demo|faults|forecasts|transform)\w*\.py"
        together = re.search(shared, nodeid)
        return together[1].replace("demo", "airflow") if together else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread:  # noqa: ANN401
    return Spread(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a part is not installed, report the command that installs it."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, FileNotFoundError):
        found = re.match(rf"{re.escape(str(ROOT))}/(\.meltano|\.venvs/[^/]+)/", str(error.filename))
        if found and not (ROOT / found[1] / "ready").exists():
            report.longrepr = f"{error.filename} is not installed: run `make {found[1]}/ready`"
    return report


@pytest.fixture(scope="session")
def meltano() -> None:
    """The real Meltano in this repository, its plugins installed."""
    assert (ROOT / ".meltano" / "ready").exists(), (
        "Meltano or its plugins are not installed: run `make .meltano/ready`"
    )
