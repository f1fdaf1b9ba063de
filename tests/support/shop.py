"""A dbt project of somebody else's that installs transform/ as a package, and what dbt does in it.

The project is in tests/shop_analytics; the rows of its source are made in Postgres. Every command
runs in one process for each version of dbt, in an order in which the later ones build on the
earlier ones, since a process of its own for each would cost minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import psycopg
from parts import ROOT
from shared_dbt import DbtProcess
from warehouses import TRANSFORM, as_text

if TYPE_CHECKING:
    from pathlib import Path

    import embedded
    from shared_dbt import Done
    from warehouses import Row

PROJECT = ROOT / "tests" / "shop_analytics"
VERSIONS = {"1.10": "dbt-1-10", "1.11": "dbt-1-11", "1.12": "dbt"}
"""Version of dbt -> name of its venv."""

CRITICAL = """O'Brien "the\\ 🛒" <!channel>"""
"""An account with two days left."""

ALL = [CRITICAL, "blog", "shop", "shop eu"]

DAY = 2_400_000
"""What each account burns in a day, times 10000."""

ROWS = f"""
insert into raw_prepaid.engagelab
select
  account || '@' || at, account, 'sms', at, at + interval '2 seconds', currency,
  balance, 0, balance, balance / 10000.0, 0, balance / 10000.0
from (values (%s, 'USD', 2), ('blog', 'USD', 12), ('shop', 'USD', 400), ('shop eu', 'EUR', 400))
  as accounts (account, currency, days_left)
cross join lateral (
  select at, {DAY} * days_left + {DAY} / 96 * (row_number() over (order by at desc) - 1) as balance
  from generate_series(
    date_bin('15 minutes', now(), 'epoch') - interval '35 days', now(), '15 minutes'
  ) as at
) as snapshots
"""
"""35 days of a snapshot each 15 minutes, up to the newest."""

TABLES = b"""
create schema raw_prepaid;
create table raw_prepaid.engagelab (
  snapshot_id text primary key, account text, product text,
  snapshot_at timestamptz, observed_at timestamptz, currency text,
  balance10000 bigint, gift_balance10000 bigint, total_balance10000 bigint,
  balance numeric(38, 4), gift_balance numeric(38, 4), total_balance numeric(38, 4)
);
create table raw_prepaid.moved (like raw_prepaid.engagelab)
"""
MOVED = b"""
insert into raw_prepaid.moved
select * from raw_prepaid.engagelab
where account = 'blog' and snapshot_at < now() - interval '1 day'
"""


AS_OF = (datetime.now(tz=timezone.utc) - timedelta(hours=1)).isoformat()
COMMANDS: dict[str, tuple[list[str], dict[str, object]]] = {
    "deps": (["deps"], {}),
    "empty": (["build", "--empty"], {"as_of": AS_OF}),
    "first build": (["build"], {"as_of": AS_OF}),
    "next build": (
        ["build", "--selector", "prepaid"],
        {"account_thresholds": {"shop eu": {"low_days": 30}, "ghost": {"low_days": 30}}},
    ),
    "alerts": (["test", "--select", "tag:alert"], {}),
    "fresh": (["source", "freshness", "--select", "source:tap_balance"], {}),
    "index": (["run-operation", "index_source"], {}),
    "index again": (["run-operation", "index_source"], {}),
    "critical above low": (["compile"], {"critical_days": 10, "low_days": 5}),
    "text for a list": (["compile"], {"retired_accounts": "shop"}),
    "text for a number": (["compile"], {"critical_days": "three"}),
    "unknown threshold": (["compile"], {"account_thresholds": {"shop": {"crtical_days": 5}}}),
    "no account": (
        ["run", "--select", "package:tap_balance,int_tap_balance__latest+"],
        {"retired_accounts": ALL},
    ),
    "no account, alerts": (["test", "--select", "tag:alert"], {"retired_accounts": ALL}),
    "old": (["source", "freshness"], {"tap_balance_table": "moved"}),
    # After another table, the first one is refused, the second one rebuilds.
    "moved": (["build", "--select", "package:tap_balance"], {"tap_balance_table": "moved"}),
    "moved, in full": (
        ["build", "--select", "package:tap_balance", "--full-refresh"],
        {"tap_balance_table": "moved"},
    ),
}
"""The commands in their order, each with its variables; dbt parses all again where those change."""


@dataclass
class Shop:
    """The project, its database, and what each of its commands did."""

    folder: Path
    uri: str
    env: dict[str, str]
    steps: dict[str, Done]

    def query(self, sql: str) -> list[Row]:
        with psycopg.connect(self.uri) as connection:
            return as_text(connection.execute(sql.encode()).fetchall())


def shop_of(version: str, server: embedded.Postgres, folder: Path) -> Shop:
    """Set the database and the project up, and run its commands."""
    name = f"shop_{version.replace('.', '_')}"
    uri = server.create_database(name).uri
    with psycopg.connect(uri) as connection:
        connection.execute(f"alter database {name} set timezone to 'Asia/Shanghai'".encode())
        connection.execute(TABLES)
        connection.execute(ROWS.encode(), [CRITICAL])
        connection.execute(MOVED)
    project = folder / "shop_analytics"
    shutil.copytree(PROJECT, project)
    package = in_git(folder) if version == max(VERSIONS) else {"local": str(TRANSFORM)}
    (project / "packages.yml").write_text(json.dumps({"packages": [package]}))
    env = os.environ | {
        "SHOP_HOST": server.socket_folder,
        "SHOP_DATABASE": name,
        "DBT_SNAPSHOT_INTERVAL_SECONDS": "900",
    }
    return Shop(project, uri, env, run(version, project, env))


def in_git(folder: Path) -> dict[str, str]:
    """Commit the package to a repository, as the entry of packages.yml that installs it."""
    work, origin = folder / "tap-balance", folder / "tap-balance.git"
    ignored = shutil.ignore_patterns("target", "logs", "__pycache__")
    shutil.copytree(TRANSFORM, work / "transform", ignore=ignored)
    author = ["-c", "user.name=Tests", "-c", "user.email=tests@shop.example"]
    for command in (
        ["init", "--quiet", "."],
        ["add", "--all"],
        [*author, "commit", "--quiet", "--message=All"],
        ["tag", "v0.1.0"],
        ["clone", "--quiet", "--bare", ".", str(origin)],
    ):
        subprocess.run(["git", *command], cwd=work, check=True)
    return {"git": origin.as_uri(), "revision": "v0.1.0", "subdirectory": "transform"}


def given(variables: dict[str, object]) -> str:
    """JSON that is YAML too: YAML has no pairs of surrogates."""
    return json.dumps(variables, ensure_ascii=False)


def run(version: str, project: Path, env: dict[str, str]) -> dict[str, Done]:
    """Run all commands."""
    database = {"tap_balance_database": env["SHOP_DATABASE"]}
    done = {}
    with closing(DbtProcess(VERSIONS[version])) as dbt:
        for name, (arguments, variables) in COMMANDS.items():
            given_too = [] if arguments == ["deps"] else ["--vars", given(database | variables)]
            done[name] = dbt.run(*arguments, *given_too, folder=project, env=env)
    return done
