"""Compare the tap with what a user would pick instead: side by side, in turn, in one run.

Every figure is a median of runs that were made in turn, and every ratio the median of the ratios
within the turns, so that a machine that is slow for a while slows both sides of it.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import ROOT, VENV, VENVS, in_turn, ratio, run, serving, write_config
from results import Report
from through_meltano import through_meltano

if TYPE_CHECKING:
    from collections.abc import Callable

    from measuring import Sample

CONTESTANTS = ROOT / "benchmarks" / "contestants"
LATENCY = 0.05
IMPORTS = "import singer_sdk, pendulum"


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


def bare_aiohttp(config: Path) -> list[object]:
    return [VENVS / "bench-aiohttp/bin/python", CONTESTANTS / "bare_aiohttp.py", config]


def bare_requests(config: Path) -> list[object]:
    return [VENV / "python", CONTESTANTS / "bare_requests.py", config]


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
            limit = 0.95 if name == "tap-balance" else 1.08
            report.at_most(f"{name}, 1 account / the imports", limit, ratio(taken, name, "imports"))
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
            "bare aiohttp": bare_aiohttp(config),
            **peers(folder, config),
        }  # fmt: skip
        measures = {name: partial(run, c, server) for name, c in commands.items()}
        taken = in_turn(2 if quick else 7, measures)
        slow = in_turn(1, {"stock SDK tap": lambda: run(stock(config), server)})
    title = f"{count} accounts, 50 ms, 32 at once"
    report.at_most(f"{title} / bare aiohttp", 1.07, ratio(taken, "tap-balance", "bare aiohttp"))
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
        config = folders[most] / "config.json"
        bare = in_turn(
            2 if quick else 5,
            {
                "tap-balance": partial(run, tap(config), server),
                "bare requests": partial(run, bare_requests(config), server),
                "bare aiohttp": partial(run, bare_aiohttp(config), server),
            },
        )
        slow = in_turn(1, {f"stock SDK tap, {most}": lambda: run(stock(config), server)})
    one, some, all_of = (taken[f"tap-balance, {count}"] for count in folders)
    stock_wall = slow[f"stock SDK tap, {most}"][0].wall
    report.at_most(
        f"{most} accounts, no latency / stock SDK tap", 0.22,
        statistics.median(s.wall for s in all_of) / stock_wall,
    )  # fmt: skip
    for name, limit in (("bare requests", 0.7), ("bare aiohttp", 4.5)):
        measured = ratio(bare, "tap-balance", name)
        report.at_most(f"{most} accounts, no latency / {name}", limit, measured)
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
    del bare["tap-balance"]
    report.table(f"1 to {most} accounts, no latency", taken | bare | slow)


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
            if "slower" in name:
                measures["bare aiohttp, slow tail"] = partial(run, bare_aiohttp(config), server)
        taken = in_turn(rounds, measures)
    report.at_most(f"TLS / plain, CPU, {count} accounts", 1.2, ratio(taken, "TLS", "plain", "cpu"))
    most = max(s.connections for s in taken["TLS"])
    report.at_most("connections, TLS", 32, most)
    slow, *_ = [name for name in variants if "slower" in name]
    report.at_most("1% of answers 20 times slower / none", 1.25, ratio(taken, slow, "50 ms"))
    bare = ratio(taken, slow, "bare aiohttp, slow tail")
    report.at_most("1% of answers 20 times slower / bare aiohttp with the same", 1.07, bare)
    report.table(f"{count} accounts: TLS, a slow tail, errors", taken)


def long_tail(report: Report, folder: Path, quick: bool) -> None:  # noqa: FBT001
    count = 1200 if quick else 6000
    options = ("--latency", "0.002", "--tail", "1000", "--every", "600")
    with serving(folder, *options) as server:
        config = write_config(folder, server.url, count)
        taken = in_turn(
            2 if quick else 5,
            {
                "tap-balance": partial(run, tap(config), server),
                "bare ThreadPoolExecutor": partial(run, bare_requests(config), server),
            },
        )
    title = f"{count} accounts, 2 ms, one in 600 takes 2 s"
    measured = ratio(taken, "tap-balance", "bare ThreadPoolExecutor")
    report.at_most(f"{title} / bare ThreadPoolExecutor as completed", 1.3, measured)
    report.table(title, taken)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, and RESULTS.md stays")
    parser.add_argument("--only", nargs="+", default=[], help="some of the parts")
    options = parser.parse_args()
    parts: dict[str, Any] = {
        part.__name__: part
        for part in (
            one_account, thousand, ten_thousand, tls_and_tail, long_tail, refused, ended,
            through_meltano,
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
        report.write()


if __name__ == "__main__":
    main()
