"""The tap as it runs in production: through Meltano into a Postgres."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import ROOT, VENVS, serving

if TYPE_CHECKING:
    from results import Report


def through_meltano(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    sys.path.insert(0, str(ROOT / "demo"))
    import embedded  # noqa: PLC0415
    import meltano_project  # noqa: PLC0415

    meltano_project.forget_the_users_settings()

    count = 2000 if quick else 10_000
    path = folder / "accounts.jsonl"
    entry = {"dev_key": "key", "dev_secret": "fake-secret"}
    path.write_text("".join(json.dumps({"account": f"a{n}", **entry}) + "\n" for n in range(count)))
    meltano = VENVS / "meltano" / "bin" / "meltano"
    env = os.environ | {
        "MELTANO_CLI_DISABLE_VERSION_CHECK": "1", "HTTP_PROXY": "", "HTTPS_PROXY": "",
    }  # fmt: skip
    subprocess.run([meltano, "install"], cwd=ROOT, env=env, check=True, capture_output=True)
    project = meltano_project.make(folder / "project")
    with serving(folder) as server, embedded.postgres(folder / "data") as postgres:
        env |= {
            "TAP_BALANCE_ACCOUNTS_FILE": str(path),
            "TAP_BALANCE_BASE_URL": server.url,
            "TARGET_POSTGRES_SQLALCHEMY_URL": postgres.uri.replace("://", "+psycopg://", 1),
        }
        began = time.perf_counter()
        peaks: dict[str, float] = {}
        with subprocess.Popen(
            [meltano, "--environment=prod", "run", "--no-install", "tap-balance",
             "target-postgres"],
            cwd=project, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            while process.poll() is None:
                for what, peak in peak_of_tree(process.pid).items():
                    peaks[what] = max(peaks.get(what, 0), peak)
                time.sleep(0.1)
        wall = time.perf_counter() - began
        rows = postgres.psql("SELECT count(*) FROM tap_balance.balance")
    works = process.returncode == 0 and str(count) in rows
    memory = ", ".join(f"{what} {peak:.0f} MiB" for what, peak in sorted(peaks.items()))
    report.goal(
        f"{count} accounts through `meltano run` into Postgres", "works",
        f"{wall:.1f} s; peak memory: {memory}", met=works,
    )  # fmt: skip


def peak_of_tree(pid: int) -> dict[str, float]:
    """Peak memory, MiB, of each process below `pid` that is alive now, by its command."""
    found: dict[str, float] = {}
    parents: dict[int, int] = {}
    status: dict[int, dict[str, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "status").read_text()
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            pairs = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            if not command[0]:
                continue  # a process that ends has none any more
            names = [Path(os.fsdecode(part)).name for part in command[:2]]
            pairs["what"] = next((n for n in names if not n.startswith("python")), names[0])
            status[int(entry.name)] = pairs
            parents[int(entry.name)] = int(pairs["PPid"])
    for child, pairs in status.items():
        above = child
        while above not in {pid, 0, 1}:
            above = parents.get(above, 0)
        if above == pid and "VmHWM" in pairs:
            peak = int(pairs["VmHWM"].split()[0]) / 1024
            found[pairs["what"]] = max(found.get(pairs["what"], 0), peak)
    return found
