"""Run dbt many times in one process: parse a project once, then one run per line of stdin.

It runs in dbt's own venv. A line is JSON: {"project", "arguments", "vars"}; the answer is one line,
the seconds that dbt counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dbt.cli.main import dbtRunner


def main() -> None:
    manifests: dict[str, Any] = {}
    for line in sys.stdin:
        job = json.loads(line)
        project = job["project"]
        common = ["--project-dir", project, "--profiles-dir", project, "--quiet"]
        common += ["--no-use-colors", "--no-version-check", "--target-path", job["target_path"]]
        common += ["--log-path", job["target_path"]]
        if project not in manifests:
            manifests[project] = dbtRunner().invoke(["parse", *common]).result
        # A run marks its nodes as compiled; the next one has to compile them for its own time.
        runner = dbtRunner(manifest=manifests[project])
        done = runner.invoke([*job["arguments"], *common, "--vars", json.dumps(job["vars"])])
        if not done.success:
            messages = [f"{each.node.name}: {each.message}" for each in done.result or []]
            sys.exit("\n".join([f"dbt failed: {done.exception}", *messages]))
        counted = json.loads((Path(job["target_path"]) / "run_results.json").read_text())
        print(json.dumps(counted["elapsed_time"]), flush=True)


if __name__ == "__main__":
    main()
