"""The same checks for every destination: is the record there, exactly and once?

Each check says in a few words what is stored. EXPECTED holds these words, so that what a
destination loses is stated, and docs/destinations.md says the same. The words are printed as a
table at the end. The file is long because a check and its row of EXPECTED are read together.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from bank import Account
from parts import ROOT
from rows import Row, counted, expected_rows, utc
from runners import Destination, Pipe
from snowflake_target import Snowflake
from targets import Csv, Jsonl, Load, PipelinewisePostgres, Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import embedded
    from bank import Bank
    from runners import Meltano
    from targets import Target

pytestmark = pytest.mark.e2e

EXPECTED: dict[str, dict[str, str]] = {
    "types": {
        "postgres": "numeric(38,4) bigint timestamp text",
        "snowflake": "NUMBER(38,4) NUMBER(38,0) TIMESTAMP_NTZ TEXT",
        "jsonl": "string number string string",
        "csv": "text text text text",
        "pipelinewise-postgres": "character varying numeric timestamp character varying",
    },
    "amounts": {"": "exact"},
    "no currency": {"": "null", "csv": "empty"},
    "names": {"": "exact", "pipelinewise-postgres": "newline as \\n, tab as \\t"},
    "instants": {"": "exact"},
    "session in UTC": {"": "exact"},
    "in Asia/Shanghai": {"": "exact"},
    "in America/New_York": {"": "exact"},
    "around DST change": {"": "2 instants"},
    "four intervals": {"": "4 rows"},
    "one interval twice": {"": "1 row", "jsonl": "2 rows", "csv": "2 rows"},
    "one of 3 fails": {"": "2 rows, status 1"},
    "killed, run again": {"": "each once", "jsonl": "twice: 5 of 10"},
    "two loads at once": {"": "each once", "jsonl": "twice: 3 of 3", "csv": "twice: 3 of 3"},
    "table lacks a column": {"": "added, rows kept"},
    "append-only, twice": {
        "": "2 rows",
        "postgres": "1 row",
        "pipelinewise-postgres": "not offered",
    },
    "overwrite": {
        "": "history lost",
        "postgres": "history kept",
        "jsonl": "not offered",
        "pipelinewise-postgres": "not offered",
    },
}
"""Check -> destination -> what is stored; "" stands for all that are not named."""

AMOUNTS = (0, 1, -1, 123456, -5, 2**53 + 1, 2**63 - 1, -(2**63))
NAMES = ('it\'s "quoted"', "two\nlines", "主账户", "back\\slash", "comma, semicolon; tab\t.")


LABELS = [
    "postgres",
    "postgres meltano",
    "snowflake",
    "snowflake meltano",
    "jsonl",
    "csv",
    "pipelinewise-postgres",
]


@pytest.fixture(params=LABELS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Destination]:
    label: str = request.param
    target: Target
    if label == "jsonl":
        target = Jsonl(tmp_path)
    elif label == "csv":
        target = Csv(tmp_path)
    elif label == "pipelinewise-postgres":
        target = PipelinewisePostgres(request.getfixturevalue("postgres"))
    elif label.startswith("postgres"):
        target = Postgres(request.getfixturevalue("postgres"))
    else:
        target = Snowflake(request.getfixturevalue("snowflake"))
    runner = request.getfixturevalue("meltano_project") if "meltano" in label else Pipe(tmp_path)
    yield Destination(label, target, runner)
    target.close()


@pytest.fixture
def says(
    destination: Destination, stored: dict[tuple[str, str], str]
) -> Callable[[str, str], None]:
    def say(check: str, words: str) -> None:
        stored[check, destination.label] = words
        expected = EXPECTED[check]
        assert words == expected.get(destination.label.split()[0], expected.get(""))

    return say


def same(found: Sequence[object], expected: Sequence[object]) -> str:
    return "exact" if found == expected else f"{found} instead of {expected}"


def by_account(rows: Iterable[Row], field: str, names: Iterable[str]) -> list[object]:
    found = {row.account: getattr(row, field) for row in rows}
    return [found.get(name) for name in names]


def test_every_value_arrives(
    destination: Destination, bank: Bank, says: Callable[[str, str], None]
) -> None:
    at = "2026-01-31T10:17:05.000123Z"
    accounts = [Account(f"a{number}", amount) for number, amount in enumerate(AMOUNTS)]
    accounts += [
        Account("otp", 48391, 10000, product="otp"),
        Account("gift", 0, 2**62, "sms", "EUR"),
    ]
    accounts += [Account(name, 1, currency="USD") for name in NAMES]
    assert destination.load(Load(bank.settings(accounts), at)) == 0
    rows = destination.target.rows()
    expected = expected_rows(accounts, at)

    types = destination.target.types()
    fields = ("balance", "balance10000", "snapshot_at", "snapshot_id")
    says("types", " ".join(types[name] for name in fields))
    amounts = [field for field in Row._fields if "balance" in field]
    numbers = [account.name for account in accounts if account.name not in NAMES]
    says(
        "amounts",
        same(
            [by_account(rows, field, numbers) for field in amounts],
            [by_account(expected, field, numbers) for field in amounts],
        ),
    )
    currencies = by_account(rows, "currency", numbers)
    assert currencies == [*[None] * len(AMOUNTS), "USD", "EUR"]
    says("no currency", "empty" if types["balance"] == "text" else "null")
    names = [(row.account, row.snapshot_id) for row in expected]
    found = [(row.account, row.snapshot_id) for row in rows]
    escaped = sorted(
        tuple(text.replace("\n", "\\n").replace("\t", "\\t") for text in pair) for pair in names
    )
    says("names", "newline as \\n, tab as \\t" if sorted(found) == escaped else same(found, names))
    says(
        "instants",
        same(
            [(row.snapshot_at, row.observed_at) for row in rows],
            [(row.snapshot_at, row.observed_at) for row in expected],
        ),
    )


def documented_query(label: str) -> str:
    """The query for the latest balance of each account that docs/ gives for a destination."""
    titles = {
        "postgres": "Postgres",
        "snowflake": "Snowflake",
        "jsonl": "DuckDB over JSON Lines",
        "csv": "DuckDB over CSV",
        "pipelinewise-postgres": "PipelineWise",
    }
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    (query,) = re.findall(
        rf"```sql\n-- {titles[label.split(maxsplit=1)[0]]}: .*\n([^`]*)```", pages
    )
    return str(query)


SESSIONS = [
    ("2026-11-01T00:30:00Z", "Asia/Shanghai"),
    ("2026-11-01T05:30:00Z", "America/New_York"),
    ("2026-11-01T06:30:00Z", "America/New_York"),
    ("2026-11-01T09:30:00Z", "UTC"),
]
"""When a run begins, and the time zone of its session.

05:30 and 06:30 are both 01:30 in New York, where clocks are set back between the two.
"""


def test_each_interval_is_a_row_in_any_time_zone(
    destination: Destination, bank: Bank, says: Callable[[str, str], None]
) -> None:
    settings = bank.settings([account := Account("main")])
    try:
        for at, zone in SESSIONS:
            destination.target.set_time_zone(zone)
            assert destination.load(Load(settings, at)) == 0
    finally:
        destination.target.set_time_zone("UTC")
    rows = destination.target.rows()
    says("four intervals", f"{len(rows)} rows")
    expected = [row for at, _ in SESSIONS for row in expected_rows([account], at)]
    says("in Asia/Shanghai", same(rows[:1], expected[:1]))
    says("in America/New_York", same(rows[1:3], expected[1:3]))
    says("session in UTC", same(rows[3:], expected[3:]))
    says("around DST change", f"{len({row.snapshot_at for row in rows[1:3]})} instants")

    ((name, snapshot_at, balance10000, balance, currency),) = destination.target.query(
        documented_query(destination.label)
    )
    assert (name, utc(snapshot_at), int(balance10000)) == ("main", utc("2026-11-01T09:00Z"), 123456)
    assert (Decimal(balance), currency) == (Decimal("12.3456"), None)


def test_a_table_that_lacks_a_column_and_an_interval_that_is_loaded_twice(
    destination: Destination, bank: Bank, says: Callable[[str, str], None]
) -> None:
    account = Account("main", 5)
    before, after, again = "2026-01-31T10:00:01Z", "2026-01-31T11:00:01Z", "2026-01-31T11:59:59Z"
    old = Load(bank.settings([account]), before, without="total_balance")
    assert destination.load(old) == 0
    assert "total_balance" not in destination.target.types()
    assert destination.load(Load(bank.settings([account]), after)) == 0
    kept = expected_rows([account], before)[0]._replace(total_balance=None)
    rows = destination.target.rows()
    says(
        "table lacks a column",
        "added, rows kept" if rows == [kept, *expected_rows([account], after)] else f"{rows}",
    )

    spent = replace(account, balance10000=4)
    assert destination.load(Load(bank.settings([spent]), again)) == 0
    rows = [row for row in destination.target.rows() if row.snapshot_id.endswith("T11:00:00Z")]
    says("one interval twice", f"{len(rows)} row{'s' * (len(rows) > 1)}")
    # What the second run saw is there, and where a target keeps both, both are.
    first = expected_rows([account], after) * (len(rows) > 1)
    assert rows == [*first, *expected_rows([spent], again)]


def test_a_failed_account_leaves_the_others(
    destination: Destination, bank: Bank, says: Callable[[str, str], None]
) -> None:
    at = "2026-01-31T10:00:00Z"
    good = [Account("first"), Account("third", 7)]
    settings = bank.settings([good[0], Account("second", error="expired"), good[1]])
    status = destination.load(Load(settings, at))
    rows = destination.target.rows()
    assert rows == expected_rows(good, at)
    says("one of 3 fails", f"{len(rows)} rows, status {status}")


def test_a_load_that_is_killed_half_way_and_run_again(
    destination: Destination, bank: Bank, says: Callable[[str, str], None]
) -> None:
    at = "2026-01-31T10:00:00Z"
    accounts = [Account(f"a{number}", number) for number in range(10)]
    load = Load(bank.settings(accounts), at, batch_rows=2)
    held = [account.name for account in accounts[5:]]
    with bank.holding(*held), destination.runner.start(destination.target, load) as running:
        running.until(lambda: destination.target.has_written(len(accounts) - len(held)))
        running.kill()
    assert destination.load(replace(load, after_kill=True)) == 0
    says("killed, run again", counted(destination.target.rows(), expected_rows(accounts, at)))


def test_two_loads_of_one_interval_at_once(
    destination: Destination, bank: Bank, says: Callable[[str, str], None]
) -> None:
    accounts = [Account(f"a{number}", number) for number in range(3)]
    # First where there is no table yet, then where there is one.
    for at in ("2026-01-31T10:00:00Z", "2026-01-31T11:00:00Z"):
        load = Load(bank.settings(accounts), at)
        start = destination.runner.start
        with (
            bank.holding(accounts[0].name) as asked,
            start(destination.target, load) as one,
            start(destination.target, load) as other,
        ):
            # Both wait for the same answer, so that they write at the same time.
            one.until(lambda: len(asked) == 2 or one.has_ended or other.has_ended)
            # Meltano refuses the second before it asks.
            assert len(asked) == 2 or "meltano" in destination.label
            bank.let_go()
            statuses = [one.wait(), other.wait()]
            print(one.output, other.output)  # noqa: T201
        # Meltano refuses the second. It can fail both, since they share the files in
        # `.meltano/run`; a scheduler's retry mends that.
        if "meltano" in destination.label and 0 not in statuses:
            statuses.append(destination.load(load))
        assert 0 in statuses
        rows = [row for row in destination.target.rows() if row.observed_at == utc(at)]
        says("two loads at once", counted(rows, expected_rows(accounts, at)))


@pytest.mark.parametrize(
    "destination", [label for label in LABELS if "meltano" not in label], indirect=True
)
def test_load_methods(
    destination: Destination, bank: Bank, says: Callable[[str, str], None]
) -> None:
    accounts = [Account("main")]
    settings = bank.settings(accounts)
    if "append-only" in destination.target.methods:
        at = "2026-01-31T10:00:00Z"
        for _ in range(2):
            assert destination.load(Load(settings, at, method="append-only")) == 0
        rows = destination.target.rows()
        assert rows == expected_rows(accounts, at) * len(rows)
        says("append-only, twice", f"{len(rows)} row{'s' * (len(rows) > 1)}")
    else:
        says("append-only, twice", "not offered")
    if "overwrite" in destination.target.methods:
        before, after = "2026-01-31T11:00:00Z", "2026-01-31T12:00:00Z"
        for at in (before, after):
            assert destination.load(Load(settings, at, method="overwrite")) == 0
            assert expected_rows(accounts, at)[0] in destination.target.rows()
        lost = expected_rows(accounts, before)[0] not in destination.target.rows()
        says("overwrite", "history lost" if lost else "history kept")
    else:
        says("overwrite", "not offered")


def test_without_pgoptions_postgres_shifts_instants_but_never_keys(
    postgres: embedded.Postgres, tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is why docs/postgres.md asks for PGTZ, and why the key is text."""
    monkeypatch.setattr(Postgres, "environment", lambda _: {})
    settings = bank.settings([Account("main")])
    with closing(Postgres(postgres)) as target:
        target.set_time_zone("America/New_York")
        for at in ("2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"):
            assert Destination("postgres", target, Pipe(tmp_path)).load(Load(settings, at)) == 0
        rows = target.rows()
    assert [row.snapshot_id for row in rows] == [
        "main@2026-11-01T05:00:00Z",
        "main@2026-11-01T06:00:00Z",
    ]
    assert {row.snapshot_at for row in rows} == {utc("2026-11-01T01:00:00Z")}


def test_ten_thousand_accounts_go_through_meltano(
    postgres: embedded.Postgres, meltano_project: Meltano, bank: Bank, tmp_path: Path
) -> None:
    accounts = [Account(f"a{number}") for number in range(10_000)]
    accounts[5_000] = Account("refused", error="expired")
    settings = bank.settings(accounts)
    path = tmp_path / "accounts.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in settings.pop("accounts")))
    load = Load(settings | {"accounts_file": str(path)}, "2026-01-31T10:00:00Z")
    with closing(Postgres(postgres)) as target:
        with meltano_project.start(target, load) as running:
            assert running.wait(300) == 1
            assert "account 'refused': HTTP 401, code 2002" in running.output
        del accounts[5_000]
        assert target.rows() == expected_rows(accounts, load.at)
