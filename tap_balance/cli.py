"""The process: what the command `tap-balance` does with errors, signals and its exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import click
from singer_sdk.exceptions import MappingError, SingerSDKError

from tap_balance.errors import AccountsFailedError, RunEndedError, SettingsError, defect
from tap_balance.tap import TapBalance


def run(args: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 when all went well, 1 when an account or the settings failed or stdout
        could not be written, 2 when the command line is wrong, 128 + n after signal n.
    """
    for variable in ("LOGLEVEL", "SINGER_SDK_LOG_CONFIG"):
        if not os.environ.get(variable):
            os.environ.pop(variable, None)  # the SDK takes an empty one for a level or a file
    # Both write what a server said, in their own words, before this tap can look at it.
    for library in ("urllib3", "requests"):
        logging.getLogger(library).propagate = False
    try:
        _check_environment()
        status = _run(args)
        sys.stdout.flush()
    except (Exception, RunEndedError) as error:  # noqa: BLE001
        for line in _explain(error):
            TapBalance.logger.error("%s", line)
        status = error.exit_status if isinstance(error, RunEndedError) else 1
    logging.shutdown()
    return status


def _check_environment() -> None:
    """Look for what the SDK and Python would answer with a traceback, or not at all."""
    if sys.stdout is None:
        raise RunEndedError(
            "stdout is closed, so nothing can be written; connect a target or a file.",
            exit_status=1,
        )
    variable = "TAP_BALANCE_LOGLEVEL" if os.environ.get("TAP_BALANCE_LOGLEVEL") else "LOGLEVEL"
    level = os.environ.get(variable, "INFO").upper()
    if not isinstance(logging.getLevelName(level), int):
        raise SettingsError(f"{variable}: must be DEBUG, INFO, WARNING, ERROR or CRITICAL.")


def _run(args: Sequence[str] | None) -> int:
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
    return 0


def _explain(error: Exception | RunEndedError) -> Sequence[str]:
    """Say in lines for the log what ended the run; what is unforeseen may hold a secret."""
    if isinstance(error, SettingsError):
        return *error.problems, "Invalid settings; no requests were sent."
    if isinstance(error, AccountsFailedError):
        return ()  # each was logged when it failed
    if isinstance(error, MappingError):
        return (f"stream_maps: {error} Correct the setting.",)
    if isinstance(error, (SingerSDKError, RunEndedError)):
        return (str(error),)
    if isinstance(error, OSError):
        # What is read has errors of its own; this comes from --discover, --about and --version.
        return (f"stdout cannot be written ({error.strerror}).",)
    return (str(defect(error)),)
