"""Load many accounts in shards with Airflow's CeleryExecutor, and print what it takes.

Needs root on Linux and a Redis, as `make test-celery` does. Everything runs on this machine: two
workers with two tasks each, the stand-in for the API, Postgres, and Airflow itself.

    .venv/bin/python benchmarks/airflow_shards.py --accounts 100000 --shards 16
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "demo")]

import embedded  # noqa: E402
import psutil  # noqa: E402
import psycopg  # noqa: E402
from airflow_celery import Cluster, missing  # noqa: E402
from meltano_project import forget_the_users_settings  # noqa: E402

from tap_balance.sandbox import SECRET  # noqa: E402

KINDS = {
    "tap": "extractors/tap-balance/venv/bin/tap-balance",
    "target": "loaders/target-postgres/venv/bin/target-postgres",
    "Meltano": "meltano/bin/meltano --log-format",
    "Airflow": "airflow worker -- ",
}


class Memory(threading.Thread):
    """Samples the memory of each kind of process twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest: dict[str, float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    command = " ".join(process.cmdline())
                    for kind, part in KINDS.items():
                        if part in command and "/bin/sh" not in command:
                            mebibytes = process.memory_info().rss / 2**20
                            self.highest[kind] = max(mebibytes, self.highest.get(kind, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds of each response")
    options = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    forget_the_users_settings()
    accounts = [
        {"account": f"account {number}", "dev_key": "sandbox-example", "dev_secret": SECRET}
        for number in range(options.accounts)
    ]
    with tempfile.TemporaryDirectory(prefix="airflow-shards-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        with embedded.postgres(home / "postgres") as database:
            cluster = Cluster(
                home / "airflow",
                {"TAP_BALANCE_CURRENCY": "USD"},
                accounts,
                {"SHARDS": str(options.shards), "RETRY_SECONDS": "5"},
                database,
                latency=options.latency,
            )
            cluster.environment["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "True"
            with cluster.running():
                cluster.wait_until("SELECT 1 FROM dag HAVING count(*) = 2", patience=120)
                measure(cluster, options.accounts)


def measure(cluster: Cluster, accounts: int) -> None:
    memory = Memory()
    memory.start()
    cluster.run("dags", "unpause", "tap_balance")
    ended = "SELECT run_id, state FROM dag_run WHERE state IN ('success', 'failed') ORDER BY id"
    (run, state), *_ = cluster.wait_until(ended, patience=3600)
    memory.ended.set()
    with psycopg.connect(cluster.database.uri) as connection:
        found = connection.execute("SELECT count(*) FROM tap_balance.balance").fetchone()
    print(f"{run}: {state}, rows: {found} of {accounts}")
    for task, tries, seconds, longest in cluster.query(
        "SELECT task_id, max(try_number), extract(epoch FROM max(end_date) - min(start_date)), "
        "max(duration) FROM task_instance WHERE run_id = ? GROUP BY task_id ORDER BY 3",
        run,
    ):
        print(f"{task:8} {seconds or 0:6.1f} s, the longest {longest or 0:6.1f} s, tries: {tries}")
    for kind, mebibytes in memory.highest.items():
        print(f"{kind:8} {mebibytes:6.0f} MiB at most")


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"all of it: {time.monotonic() - started:.0f} s")
