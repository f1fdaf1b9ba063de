"""Compare the tap with what a user would pick instead: side by side, in turn, in one run.

Every figure is a median of runs that were made in turn, and every ratio the median of the ratios
within the turns, so that a machine that is slow for a while slows both sides of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = ROOT / "benchmarks" / "contestants"
VENV = ROOT / ".venv" / "bin"
VENVS = ROOT / ".venvs"
LATENCY = 0.05
IMPORTS = "import singer_sdk, pendulum, tenacity"


@dataclass(frozen=True)
class Sample:
    """One run of one contestant."""

    status: int
    wall: float
    cpu: float
    peak: float
    """MiB"""
    requests: int
    connections: int
    state: int
    """Bytes of the last STATE line."""
    schemas: int
    stderr: int


@dataclass
class Server:
    """The API, as a process."""

    url: str
    ca: Path | None

    def counters(self) -> dict[str, int]:
        # A new connection each time, so that the count of the others is right.
        context = None
        if self.ca:
            import ssl  # noqa: PLC0415

            context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(f"{self.url}/counters", context=context) as answer:
            counted: dict[str, int] = json.load(answer)
            return counted


@contextmanager
def serving(folder: Path, *options: str, tls: bool = False) -> Iterator[Server]:
    ca = folder / "ca.pem" if tls else None
    command: list[str | Path] = [VENV / "python", ROOT / "benchmarks" / "server.py", *options]
    if ca:
        command += ["--tls", str(ca)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Server(process.stdout.readline().strip(), ca)
        process.stdin.close()


def write_config(folder: Path, url: str, count: int, **more: object) -> Path:
    path = folder / "config.json"
    entries = [
        {"account": f"a{number}", "dev_key": f"key-{number}", "dev_secret": "fake-secret"}
        for number in range(count)
    ]
    path.write_text(json.dumps({"base_url": url, "accounts": entries, **more}), encoding="utf-8")
    return path


def run(
    command: Sequence[object], server: Server | None = None, env: Mapping[str, str] | None = None
) -> Sample:
    """Run a contestant to its end and measure it."""
    if server:
        server.counters()
    proxies = {"HTTP_PROXY": "", "HTTPS_PROXY": "", "ALL_PROXY": "", "NO_PROXY": "*"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=err,
            env=os.environ | proxies | dict(env or {}),
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().splitlines()
        size = err.tell()
        if process.returncode:
            err.seek(0)
            sys.stderr.write(err.read()[-1000:].decode(errors="replace"))
    states = [line for line in lines if line.startswith(b'{"type":"STATE"')]
    counted = server.counters() if server else {"requests": 0, "connections": 0}
    return Sample(
        status=process.returncode,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss / 1024,
        requests=counted["requests"],
        connections=counted["connections"],
        state=len(states[-1]) if states else 0,
        schemas=sum(line.startswith(b'{"type":"SCHEMA"') for line in lines),
        stderr=size,
    )


@dataclass
class Report:
    """What is printed and written in the end."""

    goals: list[tuple[str, str, str, bool]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def goal(self, measure: str, goal: str, got: str, *, met: bool) -> None:
        self.goals.append((measure, goal, got, met))
        print(f"{'  ok  ' if met else 'MISSED'} {measure}: {got} (goal: {goal})", flush=True)

    def at_most(self, measure: str, limit: float, got: float, unit: str = "") -> None:
        self.goal(measure, f"at most {limit:g}{unit}", f"{got:.2f}{unit}", met=got <= limit)

    def table(self, title: str, samples: Mapping[str, Sequence[Sample]]) -> None:
        rows = [
            f"### {title}",
            "",
            "| contestant | wall, s | CPU, s | peak, MiB | requests | connections | STATE, bytes |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, taken in samples.items():

            def median(what: str, taken: Sequence[Sample] = taken) -> float:
                return float(statistics.median(getattr(sample, what) for sample in taken))

            rows.append(
                f"| {name} | {median('wall'):.2f} | {median('cpu'):.2f} | {median('peak'):.0f} "
                f"| {median('requests'):.0f} | {median('connections'):.0f} "
                f"| {median('state'):.0f} |"
            )
        self.tables.append("\n".join([*rows, ""]))


def in_turn(
    rounds: int, contestants: Mapping[str, Callable[[], Sample]]
) -> dict[str, list[Sample]]:
    """Run all contestants one after the other, so many times."""
    taken: dict[str, list[Sample]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            taken[name].append(measure())
    return taken


def ratio(taken: Mapping[str, Sequence[Sample]], one: str, other: str, what: str = "wall") -> float:
    pairs = zip(taken[one], taken[other], strict=True)
    return float(statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs))


def peers(folder: Path, config: Path) -> dict[str, list[object]]:
    return {
        "dlt, 32 workers": [
            VENVS / "bench-dlt/bin/python", CONTESTANTS / "dlt_pipeline.py", config, folder,
        ],
        "airbyte-cdk, 32 workers": [
            VENVS / "bench-airbyte/bin/python", CONTESTANTS / "airbyte_declarative.py", config,
            folder,
        ],
    }  # fmt: skip


def tap(config: Path) -> list[object]:
    return [VENV / "tap-balance", "--config", config]


def stock(config: Path) -> list[object]:
    return [VENV / "python", CONTESTANTS / "stock_sdk.py", "--config", config]


def one_account(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    with serving(folder) as server:
        config = write_config(folder, server.url, 1)
        (rest_folder := folder / "rest").mkdir()
        rest_config = rest_folder / "config.json"
        rest_config.write_text(
            json.dumps({
                "api_url": server.url, "auth_method": "basic", "username": "key-0",
                "password": "fake-secret",
                "streams": [{
                    "name": "balance", "path": "/v1/balance", "records_path": "$",
                    "primary_keys": [],
                }],
            }),
            encoding="utf-8",
        )  # fmt: skip
        commands: dict[str, list[object]] = {
            "imports": [VENV / "python", "-c", IMPORTS],
            "tap-balance": tap(config),
            **{
                f"tap-balance {option}": [VENV / "tap-balance", option]
                for option in ("--version", "--about", "--discover")
            },
        }
        taken = in_turn(
            5 if quick else 21, {name: partial(run, c, server) for name, c in commands.items()}
        )
        for name in list(commands)[1:]:
            report.at_most(f"{name}, 1 account / the imports", 1.08, ratio(taken, name, "imports"))
        sent = sum(s.requests for name in list(commands)[2:] for s in taken[name])
        report.goal("requests of --version, --about, --discover", "none", str(sent), met=sent == 0)
        others = {
            "tap-rest-api-msdk": [
                VENVS / "bench-rest-msdk/bin/tap-rest-api-msdk", "--config", rest_config,
            ],
            **peers(folder, config),
        }  # fmt: skip
        taken |= in_turn(
            2 if quick else 7, {name: partial(run, c, server) for name, c in others.items()}
        )
        own = taken["tap-balance"]
        for name in others:
            faster = statistics.median(s.wall for s in taken[name]) / statistics.median(
                s.wall for s in own
            )
            smaller = statistics.median(s.peak for s in taken[name]) / statistics.median(
                s.peak for s in own
            )
            report.goal(
                f"1 account / {name}", "faster, less memory",
                f"{faster:.1f} times faster, {smaller:.1f} times less memory",
                met=faster > 1 and smaller > 1 and all(s.status == 0 for s in taken[name]),
            )  # fmt: skip
        report.table("1 account, no latency", taken)


def thousand(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    count = 200 if quick else 1000
    with serving(folder, "--latency", str(LATENCY)) as server:
        config = write_config(folder, server.url, count)
        commands: dict[str, list[object]] = {
            "tap-balance": tap(config),
            "bare aiohttp": [
                VENVS / "bench-aiohttp/bin/python", CONTESTANTS / "bare_aiohttp.py", config,
            ],
            **peers(folder, config),
        }  # fmt: skip
        measures = {name: partial(run, c, server) for name, c in commands.items()}
        taken = in_turn(2 if quick else 7, measures)
        slow = in_turn(1, {"stock SDK tap": lambda: run(stock(config), server)})
    title = f"{count} accounts, 50 ms, 32 at once"
    report.at_most(f"{title} / bare aiohttp", 1.10, ratio(taken, "tap-balance", "bare aiohttp"))
    times = slow["stock SDK tap"][0].wall / statistics.median(s.wall for s in taken["tap-balance"])
    report.goal(
        f"{title} / stock SDK tap", "at least 25 times faster", f"{times:.1f} times",
        met=times >= 25,  # noqa: PLR2004
    )  # fmt: skip
    for name in peers(folder, config):
        faster, smaller = (1 / ratio(taken, "tap-balance", name, w) for w in ("wall", "peak"))
        report.goal(
            f"{title} / {name}", "faster, less memory",
            f"{faster:.1f} times faster, {smaller:.1f} times less memory",
            met=faster > 1 and smaller > 1,
        )  # fmt: skip
    report.table(title, taken | slow)


def ten_thousand(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    most = 2000 if quick else 10_000
    with serving(folder) as server:
        folders = {count: folder / str(count) for count in (1, 1000, most)}
        for count, place in folders.items():
            place.mkdir()
            write_config(place, server.url, count)
        taken = in_turn(
            2 if quick else 5,
            {
                f"tap-balance, {count}": partial(run, tap(place / "config.json"), server)
                for count, place in folders.items()
            },
        )
        slow = in_turn(
            1, {f"stock SDK tap, {most}": lambda: run(stock(folders[most] / "config.json"), server)}
        )
    one, some, all_of = (taken[f"tap-balance, {count}"] for count in folders)
    stock_wall = slow[f"stock SDK tap, {most}"][0].wall
    report.at_most(
        f"{most} accounts, no latency / stock SDK tap", 0.30,
        statistics.median(s.wall for s in all_of) / stock_wall,
    )  # fmt: skip
    linear = statistics.median(
        ((c.cpu - a.cpu) / most) / ((b.cpu - a.cpu) / 1000)
        for a, b, c in zip(one, some, all_of, strict=True)
    )
    report.at_most(f"CPU per account at {most} / at 1000, less the start", 1.1, linear)
    memory = statistics.median(
        (c.peak - a.peak) * 1024 / most for a, c in zip(one, all_of, strict=True)
    )
    report.at_most(f"memory per account, 1 to {most}", 1.0, memory, " KiB")
    every = [*one, *some, *all_of]
    report.at_most("STATE, at any number", 200, max(s.state for s in every), " bytes")
    schemas = {s.schemas for s in every}
    report.goal("SCHEMA lines, at any number", "exactly 1", str(schemas), met=schemas == {1})
    report.at_most("stderr, at any number", 2000, max(s.stderr for s in every), " bytes")
    report.table(f"1 to {most} accounts, no latency", taken | slow)


def tls_and_tail(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    rounds, count = (2 if quick else 7), (300 if quick else 1000)
    measures: dict[str, Callable[[], Sample]] = {}
    variants = {
        "plain": ((), False),
        "TLS": ((), True),
        "50 ms": (("--latency", "0.05"), False),
        "50 ms, 1% of answers 20 times slower": (("--latency", "0.05", "--tail", "20"), False),
        "50 ms, 1% of answers are errors": (("--latency", "0.05", "--errors", "100"), False),
    }
    with ExitStack() as stack:
        for name, (options, tls) in variants.items():
            place = folder / f"variant{len(measures)}"
            place.mkdir()
            server = stack.enter_context(serving(place, *options, tls=tls))
            config = write_config(place, server.url, count)
            env = {"REQUESTS_CA_BUNDLE": str(server.ca)} if server.ca else {}
            measures[name] = partial(run, tap(config), server, env)
        taken = in_turn(rounds, measures)
    report.at_most(f"TLS / plain, CPU, {count} accounts", 1.2, ratio(taken, "TLS", "plain", "cpu"))
    most = max(s.connections for s in taken["TLS"])
    report.at_most("connections, TLS", 32, most)
    slow, *_ = [name for name in variants if "slower" in name]
    report.at_most("1% of answers 20 times slower / none", 1.7, ratio(taken, slow, "50 ms"))
    report.table(f"{count} accounts: TLS, a slow tail, errors", taken)


def refused(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        places = {count: folder / f"refused{count}" for count in (1, 1000)}
        for count, place in places.items():
            place.mkdir()
            write_config(place, url, count)
        taken = in_turn(
            1 if quick else 5,
            {str(count): partial(run, tap(p / "config.json")) for count, p in places.items()},
        )
    report.at_most("1000 accounts, host refuses / 1 such account", 1.5, ratio(taken, "1000", "1"))


def ended(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    latencies, more = [], []
    with serving(folder, "--latency", str(LATENCY)) as server:
        config = write_config(folder, server.url, 1000)
        for _ in range(2 if quick else 7):
            server.counters()
            with subprocess.Popen(
                [str(part) for part in tap(config)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                assert process.stdout is not None
                for _ in range(200):
                    process.stdout.readline()
                before = server.counters()["requests"]
                process.send_signal(signal.SIGTERM)
                asked = time.perf_counter()
                process.stdout.read()
                process.wait()
                latencies.append(time.perf_counter() - asked)
            more.append(server.counters()["requests"])
            assert before
    limit = LATENCY + 0.5
    report.at_most("SIGTERM in mid-run until the end", limit, max(latencies), " s")
    report.at_most("requests after SIGTERM", 64, max(more))


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


def through_meltano(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    sys.path.insert(0, str(ROOT / "demo"))
    import embedded  # noqa: PLC0415

    count = 2000 if quick else 10_000
    path = folder / "accounts.jsonl"
    entry = {"dev_key": "key", "dev_secret": "fake-secret"}
    path.write_text("".join(json.dumps({"account": f"a{n}", **entry}) + "\n" for n in range(count)))
    meltano = VENVS / "meltano" / "bin" / "meltano"
    env = os.environ | {
        "MELTANO_CLI_DISABLE_VERSION_CHECK": "1", "HTTP_PROXY": "", "HTTPS_PROXY": "",
    }  # fmt: skip
    subprocess.run([meltano, "install"], cwd=ROOT, env=env, check=True, capture_output=True)
    with serving(folder) as server, embedded.postgres(folder / "data") as postgres:
        env |= {
            "TAP_BALANCE_ACCOUNTS_FILE": str(path),
            "TAP_BALANCE_BASE_URL": server.url,
            "TARGET_POSTGRES_SQLALCHEMY_URL": postgres.uri.replace("://", "+psycopg://", 1),
        }
        began = time.perf_counter()
        peaks: dict[str, float] = {}
        with subprocess.Popen(
            [meltano, "--environment=prod", "run", "--full-refresh", "tap-balance",
             "target-postgres"],
            cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
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


NOT_COMPARABLE = """\
- The contestants do not do the same. The tap checks amounts, keeps a deadline for each answer, and
  writes a schema, exact decimals and a state; bare aiohttp does nothing but requests and prints the
  bodies. The stock tap writes three integers, and a state for each partition.
- "The imports" take the interpreter apart in the end, as Python does; the tap ends without that.
- dlt also normalizes and loads into files; airbyte-cdk is run without a destination.
- tap-rest-api-msdk pins an old SDK and knows one set of credentials, so it is measured with one
  account only.
- The stock tap is run once per table, since it takes most of the time; its ratio is not paired.
- The server is on the same machine and takes its share of the cores.
"""


def versions() -> str:
    lines = [f"- Python {platform.python_version()}, {os.cpu_count()} cores"]
    lines += [f"- {name} {version(name)}" for name in ("tap-balance", "singer-sdk", "requests")]
    for lock, package in (
        ("aiohttp", "aiohttp"), ("dlt", "dlt"), ("airbyte", "airbyte-cdk"),
        ("rest-msdk", "tap-rest-api-msdk"),
    ):  # fmt: skip
        text = (ROOT / "requirements" / f"bench-{lock}.txt").read_text(encoding="utf-8")
        pin = next(line for line in text.splitlines() if line.startswith(f"{package}=="))
        lines.append(f"- {package} {pin.split('==')[1].split()[0]}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, and RESULTS.md stays")
    parser.add_argument("--only", nargs="+", default=[], help="some of the parts")
    options = parser.parse_args()
    parts: dict[str, Any] = {
        part.__name__: part
        for part in (
            one_account, thousand, ten_thousand, tls_and_tail, refused, ended, through_meltano,
        )
    }  # fmt: skip
    report = Report()
    for name, part in parts.items():
        if not options.only or name in options.only:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                part(report, Path(folder), options.quick)
    print("\n" + "\n".join(report.tables))
    # A run of everything, in full, is what RESULTS.md holds.
    if not options.quick and not options.only:
        goals = "\n".join(
            f"| {measure} | {goal} | {got} | {'yes' if met else '**no**'} |"
            for measure, goal, got, met in report.goals
        )
        (ROOT / "benchmarks" / "RESULTS.md").write_text(
            f"# Results\n\nWritten by `make bench`; {bench_says()}\n\n{versions()}\n\n"
            f"## Goals\n\n| measure | goal | measured | met |\n|---|---|---|---|\n{goals}\n\n"
            f"## Figures\n\nMedians.\n\n" + "\n".join(report.tables)
            + f"\n## What is not comparable\n\n{NOT_COMPARABLE}",
            encoding="utf-8",
        )  # fmt: skip


def bench_says() -> str:
    return "ratios are medians of the ratios within turns of one run. Run it on your own machine."


if __name__ == "__main__":
    main()
