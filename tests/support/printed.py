"""The code blocks of the pages, run as they are printed.

What is done with a block follows from its language, and from the files that the page names before
it: shell blocks run, JSON and YAML become the file (YAML is merged into what is there), lines that
only set variables are appended to `.env`, SQL runs on the destination. Of a crontab, the commands
run. Only addresses and secrets are replaced.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import meltano_project
import psycopg
import yaml
from pages import BLOCK
from parts import CONNECTOR_PYTHON, LOADERS, MELTANO, QUIET, ROOT, VENVS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import embedded
    from pages import Page

NOT_RUN = "not run by the tests"
"""What the paragraph before a block says where it cannot be run."""

COMMANDS = {
    "dbt": VENVS / "dbt/bin/dbt",
    "meltano": MELTANO,
    "python": VENVS / "dbt/bin/python",
    "tap-balance": ROOT / ".venv/bin/tap-balance",
    "target-csv": VENVS / "target-csv/bin/target-csv",
    "target-jsonl": LOADERS / "target-jsonl/venv/bin/target-jsonl",
    "target-postgres": LOADERS / "target-postgres/venv/bin/target-postgres",
    "uv": ROOT / ".venv/bin/uv",
}
"""What is on the PATH of a shell block, besides the system's programs."""

_SUFFIXES = {"json": r"\.jsonl?", "yaml": r"\.yml", "sql": r"\.sql", "bash": r"\.env"}
_IGNORED = shutil.ignore_patterns(
    *(".git", ".venv", ".venvs", ".meltano", ".*_cache", ".hypothesis", "__pycache__"),
    *("demo-output", "output", "dist", "node_modules", "target", "logs", ".env"),
)
_ASSIGNMENTS = re.compile(r"([A-Z_]+=('[^']*'|\S*)\n)+")
_CRON = re.compile(r"^[\d*/,-]+( [\d*/,-]+){4} (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        language: What stands behind its fence.
        text: Its lines.
        before: The page up to it.
    """

    language: str
    text: str
    before: str

    @property
    def is_for_a_reader_to_copy(self) -> bool:
        """Not what a program prints, and no picture."""
        return self.language not in {"", "mermaid", "console"} or bool(_CRON.search(self.text))

    @property
    def is_run(self) -> bool:
        """Unless the paragraph before says otherwise."""
        return NOT_RUN not in " ".join(self.before.strip().rpartition("\n\n")[2].split())

    @property
    def file(self) -> str:
        """The last file named before the block that can hold it."""
        names = re.findall(rf"`([\w./-]*{_SUFFIXES[self.language]})`", self.before)
        return str(names[-1]) if names else ""


def blocks(page: Page) -> list[Block]:
    """The blocks of a page that a reader would copy."""
    found = [
        Block(match["language"], textwrap.dedent(match["text"]), page.text[: match.start()])
        for match in BLOCK.finditer(page.text)
    ]
    return [block for block in found if block.is_for_a_reader_to_copy]


def clone(folder: Path) -> Path:
    """Copy what a clone has, with all that `make` has installed."""
    shutil.copytree(ROOT, folder, ignore=_IGNORED, dirs_exist_ok=True)
    for path in [folder / "pyproject.toml", *(folder / "requirements").iterdir()]:
        os.utime(path, (0, 0))  # nothing is to be installed again
    for name in (".venv", ".venvs"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("meltano.yml", "plugins", "transform"):
        remove(folder / name)
    meltano_project.make(folder)
    (folder / ".meltano" / "ready").touch()
    loaders = folder / ".meltano" / "loaders"
    loaders.unlink()
    for name in ("target-jsonl", "target-postgres", "target-snowflake"):
        install(loaders / name, LOADERS / name / "venv")
    install(loaders / "target-csv", VENVS / "target-csv")
    return folder


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def install(plugin: Path, venv: Path) -> None:
    """Let a plugin of Meltano have this virtual environment."""
    plugin.mkdir(parents=True, exist_ok=True)
    (plugin / "venv").unlink(missing_ok=True)
    (plugin / "venv").symlink_to(venv)


@dataclass
class Place:
    """Where the blocks of a page run.

    Attributes:
        folder: The working directory.
        database: Where SQL runs that is not for DuckDB.
        replaced: Printed address or secret -> the one here.
        environment: More of it than what every place has.
    """

    folder: Path
    database: embedded.Postgres
    replaced: dict[str, str]
    environment: dict[str, str]

    def __post_init__(self) -> None:
        self.environment |= {
            "DBT_TARGET_PATH": f"{self.folder.parent}/target",
            "DBT_LOG_PATH": f"{self.folder.parent}/logs",
            "UV_TOOL_BIN_DIR": f"{self.folder.parent}/tools",
            "UV_TOOL_DIR": f"{self.folder.parent}/uv-tools",
        }
        self.bin = self.folder.parent / "bin"
        self.bin.mkdir()
        for name, path in COMMANDS.items():
            self.provide(name, path)

    def provide(self, name: str, path: Path, *arguments: str) -> None:
        """Put a command on the PATH."""
        script = self.bin / name
        script.write_text(f'#!/bin/sh\nexec {" ".join([str(path), *arguments])} "$@"\n')
        script.chmod(0o755)

    def query(self, sql: str) -> Sequence[Any]:
        """Run SQL in the database, and return the rows."""
        with psycopg.connect(self.database.uri) as connection:
            return connection.execute(sql.encode()).fetchall()

    def run(self, block: Block) -> None:
        """Do with a block what its reader would."""
        text = block.text
        for printed, here in self.replaced.items():
            text = text.replace(printed, here)
        if block.language == "bash" and _ASSIGNMENTS.fullmatch(text):
            self._write(block.file or ".env", text, append=True)
        elif block.language == "bash":
            self.shell(text)
        elif block.language == "":
            for command in _CRON.findall(text):
                self.shell(command[-1].replace("\\%", "%"))
        elif block.language == "sql" and block.text.startswith("-- models/"):
            self._write(block.text.split()[1], text)
        elif block.language == "sql":
            assert self._rows(text) != [], text
        elif block.language == "json" and not block.file:
            self.environment |= json.loads(text)
        elif block.language == "json":
            self._write(block.file, text)
        else:
            assert block.language == "yaml"
            self._merge(block.file, text)

    def shell(self, commands: str) -> str:
        """Run commands; the first that fails fails the test."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"VIRTUAL_ENV", "PYTHONPATH"}
        }
        paths = f"{self.folder.parent}/tools:{self.bin}:/usr/local/bin:/usr/bin:/bin"
        done = subprocess.run(
            ["bash", "-e", "-u", "-c", commands],
            cwd=self.folder,
            env=environment | QUIET | {"PATH": paths} | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout[-9000:]}{done.stderr[-9000:]}"
        return done.stdout

    def _write(self, name: str, text: str, *, append: bool = False) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)

    def _merge(self, name: str, text: str) -> None:
        path = self.folder / name
        if path.exists():
            there = yaml.safe_load(path.read_text(encoding="utf-8"))
            text = yaml.safe_dump(merged(there, yaml.safe_load(text)), sort_keys=False)
        self._write(name, text)

    def _rows(self, sql: str) -> Sequence[Any]:
        if "DuckDB" not in sql:
            return self.query(sql.rstrip().rstrip(";"))
        program = "import duckdb, sys; print(len(duckdb.sql(sys.argv[1]).fetchall()))"
        return [None] * int(self.shell(shlex.join([str(CONNECTOR_PYTHON), "-c", program, sql])))


def merged(there: Any, more: Any) -> Any:  # noqa: ANN401 - whatever YAML has
    """Add to a mapping; of two plugins or packages, the new one replaces the one of its name."""
    if isinstance(there, dict) and isinstance(more, dict):
        return there | {key: merged(there.get(key), value) for key, value in more.items()}
    if isinstance(there, list) and all(isinstance(each, dict) and "name" in each for each in there):
        names = {each["name"] for each in more}
        return [each for each in there if each["name"] not in names] + more
    return more
