"""What is made of the measurements: goals met or missed, tables, and RESULTS.md."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from measuring import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from measuring import Sample

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
OF_THE_MODELS = "## The dbt models"
"""The heading of what transform.py writes at its end."""


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

    def write(self) -> None:
        """Write RESULTS.md; what `transform.py` has written at its end stays."""
        _, heading, models = RESULTS.read_text(encoding="utf-8").partition(OF_THE_MODELS)
        goals = "\n".join(
            f"| {measure} | {goal} | {got} | {'yes' if met else '**no**'} |"
            for measure, goal, got, met in self.goals
        )
        RESULTS.write_text(
            "# Results\n\nWritten by `make bench`; ratios are medians of the ratios within turns "
            f"of one run. Run it on your own machine.\n\n{versions()}\n\n"
            f"## Goals\n\n| measure | goal | measured | met |\n|---|---|---|---|\n{goals}\n\n"
            "## Figures\n\nMedians.\n\n" + "\n".join(self.tables)
            + f"\n## What is not comparable\n\n{NOT_COMPARABLE}\n{heading}{models}",
            encoding="utf-8",
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
