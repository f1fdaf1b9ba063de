"""Run by Meltano's own interpreter: which of the command lines on stdin does its CLI not know?

stdin is a JSON list of lists of arguments; stdout a JSON object with what is wrong with them, and
with the environment variables that Meltano reads. Nothing is run: options and commands are looked
up in the tree that Meltano declares.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import yaml
from meltano.cli import cli  # type: ignore[import-not-found]
from meltano.core import bundle  # type: ignore[import-not-found]
from meltano.core.project import PROJECT_ENVIRONMENT_ENV, PROJECT_SYS_DIR_ROOT_ENV  # type: ignore[import-not-found]


def check(command: Any, arguments: list[str], parent: Any = None) -> None:  # noqa: ANN401
    """Parse the arguments, and those of the commands below.

    Raises:
        UsageError: There is no such option or command.
    """
    context = click.Context(command, parent, command.name, **command.context_settings)
    _, rest, _ = command.make_parser(context).parse_args(list(arguments))
    if rest and isinstance(command, click.Group):
        _, below, rest = command.resolve_command(context, rest)
        check(below, rest, context)


def problem(line: list[str]) -> str | None:
    """Say what is wrong with a command line, if something is."""
    try:
        check(cli, line)
    except click.UsageError as error:
        return f"meltano {' '.join(line)}: {error.format_message()}"
    return None


def variables() -> list[str]:
    """List the environment variables of Meltano's settings, and the two that are no settings."""
    declared = yaml.safe_load((bundle.root / "settings.yml").read_text(encoding="utf-8"))
    names = [one["name"].upper().replace(".", "_") for one in declared["settings"]]
    return [
        PROJECT_ENVIRONMENT_ENV,
        PROJECT_SYS_DIR_ROOT_ENV,
        *(f"MELTANO_{name}" for name in names),
    ]


if __name__ == "__main__":
    problems = [found for line in json.load(sys.stdin) if (found := problem(line))]
    known = {"problems": problems, "variables": variables()}
    print(json.dumps(known))  # noqa: T201 - its answer
