"""Write one self-contained HTML page from the models: what is left, how long, and what to top up.

dbt itself reads the models, so that the page is of whatever database the profile points to. All of
the page can be read without scripts; its scripts, which are embedded, sort, search and filter the
table, draw one account's history, and keep the ages right. Nothing is fetched when it is opened.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from report_page.reading import read_models
from report_page.rendering import render


def main() -> None:
    """Read the models, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dbt", default="dbt", help="the dbt command")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.add_argument("--vars", default="{}", help="dbt variables, as for the models")
    parser.add_argument(
        "--now",
        type=datetime.fromisoformat,
        help="the time to take for the present one, UTC, such as 2026-11-27T08:00:00",
    )
    options = parser.parse_args()
    models = read_models(options.dbt, options.vars)
    now = options.now or datetime.now(timezone.utc).replace(tzinfo=None)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(render(models, now.replace(microsecond=0)), encoding="utf-8")


if __name__ == "__main__":
    main()
