"""The process: what the command `tap-balance` does with errors, signals and its exit status."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import click
from singer_sdk.exceptions import MappingError, SingerSDKError

from tap_balance.errors import AccountsFailedError, RunEndedError, SettingsError, defect
from tap_balance.tap import TapBalance

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = TapBalance.logger


def run(args: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 when all went well, 1 when an account or the settings failed or stdout
        could not be written, 2 when the command line is wrong, 128 + n after signal n.
    """
    for variable in ("LOGLEVEL", "SINGER_SDK_LOG_CONFIG"):
        if not os.environ.get(variable):
            os.environ.pop(variable, None)  # the SDK takes an empty one for a level or a file
    try:
        status = 1 if _environment_is_wrong() else _run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except RunEndedError as end:
        logger.error("%s", end)  # noqa: TRY400 - a line, not a traceback
        status = end.exit_status
    except OSError as error:
        logger.error("%s", _explain(error))  # noqa: TRY400
        status = 1
    logging.shutdown()
    return status


def _run(args: Sequence[str] | None) -> int:
    # Both write what a server said, in their own words, before this tap can look at it.
    for library in ("urllib3", "requests"):
        logging.getLogger(library).propagate = False
    try:
        command = TapBalance.cli  # sets up the log
    except Exception as error:  # noqa: BLE001
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        click.echo(  # the loggers may be disabled by what could be read of it
            f"SINGER_SDK_LOG_CONFIG: {os.environ['SINGER_SDK_LOG_CONFIG']} is not a logging config "
            f"in YAML ({reason}); correct the file, or unset the variable.",
            err=True,
        )
        return 1
    try:
        command(args, prog_name=TapBalance.name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except SettingsError as error:
        for problem in error.problems:
            logger.error("%s", problem)  # noqa: TRY400
        logger.error("Invalid settings; no requests were sent.")  # noqa: TRY400
    except AccountsFailedError:
        pass  # each was logged when it failed
    except MappingError as error:
        logger.error("stream_maps: %s Correct the setting.", error)  # noqa: TRY400
    except SingerSDKError as error:
        logger.error("%s", error)  # noqa: TRY400
    except Exception as error:  # noqa: BLE001
        logger.error("%s", _explain(error))  # noqa: TRY400
    return 1


def _environment_is_wrong() -> bool:
    """Look for what the SDK and Python would answer with a traceback, or not at all."""
    if sys.stdout is None:
        logger.error("stdout is closed, so nothing can be written; connect a target or a file.")
        return True
    for variable in ("TAP_BALANCE_LOGLEVEL", "LOGLEVEL"):
        if level := os.environ.get(variable):
            if isinstance(logging.getLevelName(level.upper()), int):
                return False
            logger.error("%s: must be DEBUG, INFO, WARNING, ERROR or CRITICAL.", variable)
            return True
    return False


def _explain(error: Exception) -> str:
    """Say where something unforeseen failed, without its text, which may hold a secret."""
    if isinstance(error, OSError):
        # What is read has errors of its own; this comes from --discover, --about and --version.
        return f"stdout cannot be written ({error.strerror})."
    explained = defect(error)
    return f"{explained}. {explained.next_step}"
