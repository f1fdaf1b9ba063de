"""TapBalance: the plugin that the SDK runs, with its settings, its stream and its commands."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import IO, Any, ClassVar, cast

import click
import pendulum
from singer_sdk import Tap
from singer_sdk.exceptions import MappingError, SingerSDKError
from singer_sdk.helpers.capabilities import CapabilitiesEnum, PluginCapabilities, TapCapabilities
from singer_sdk.io_base import SingerWriter
from singer_sdk.mapper import RemoveRecordTransform
from singer_sdk.singerlib import Catalog, Message, SchemaMessage

from tap_balance.accounts import Account, read_accounts
from tap_balance.amounts import exact_decimal
from tap_balance.client import BalanceClient
from tap_balance.concurrency import Limits, Outcome, Shutdown, fetch_all
from tap_balance.config import (
    SETTINGS,
    check_settings,
    parse_json,
    read_environment,
    read_files,
    unknown_settings,
)
from tap_balance.errors import AccountError, AccountsFailedError, RunEndedError, SettingsError
from tap_balance.snapshots import snapshot_of_run
from tap_balance.streams import BalanceStream, complete_catalog, with_decimals

_ROW = "{:<6}  {:<7}  {:>24}  {}"
"""What `--test` prints on a terminal; the last column may be as long as it has to."""


class StdoutWriter(SingerWriter):
    """Writes Singer messages to what was stdout when the tap was made."""

    def __init__(self) -> None:
        super().__init__()
        self._stdout = sys.stdout
        self._is_real = sys.stdout is sys.__stdout__

    def write_message(self, message: Message) -> None:
        """Write one message.

        Raises:
            RunEndedError: Nobody reads stdout any more, or its disk is full.
        """
        if isinstance(message, SchemaMessage):
            message.schema = with_decimals(message.schema)
        line = self.format_message(message) + "\n"
        try:
            if self._is_real:
                _write_whole(self._stdout.fileno(), line.encode())
            else:
                self._stdout.write(line)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RunEndedError(
                f"cannot write to stdout ({reason}); the target has probably ended", exit_status=1
            ) from error


def _write_whole(descriptor: int, data: bytes) -> None:
    """Write to the end. Under `PYTHONUNBUFFERED`, `sys.stdout` drops what a write leaves over."""
    while data:
        with contextlib.suppress(BlockingIOError):  # a pipe that was made not to block, and is full
            data = data[os.write(descriptor, data) :]
        if data:
            select.select([], [descriptor], [])


class TapBalance(Tap):
    """Singer tap for prepaid EngageLab balances."""

    name = "tap-balance"
    package_name = "tap-balance"
    message_writer_class = StdoutWriter
    config_jsonschema: ClassVar[dict[str, Any]] = copy.deepcopy(SETTINGS)
    # Neither BATCH, since there is one record per account, nor ACTIVATE_VERSION, which makes a
    # target drop the older rows.
    capabilities: ClassVar[list[CapabilitiesEnum]] = [
        TapCapabilities.CATALOG,
        TapCapabilities.STATE,
        TapCapabilities.DISCOVER,
        TapCapabilities.TEST,
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
    ]

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        catalog: Catalog | Mapping[str, Any] | None = None,
        parse_env_config: bool = False,
        validate_config: bool = True,
        handle_signals: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Check the settings, then make the tap; the arguments are those of the SDK's `Tap`.

        Without `validate_config`, as for `--discover`, no settings are needed or looked at.
        With `handle_signals`, SIGINT and SIGTERM end the run in order (`Shutdown`).

        Raises:
            SettingsError: Something in the settings or the catalog is wrong.
        """
        began = pendulum.now("UTC")
        self.shutdown = Shutdown()
        self.accounts: tuple[Account, ...] = ()
        self.bookmark: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        if validate_config:
            schema = self.config_jsonschema
            given = dict(config or {}) | (read_environment(schema) if parse_env_config else {})
            for line in unknown_settings(given, schema):
                self.logger.warning("%s", line)
            settings = check_settings(given, schema, began)
            listed = read_accounts(settings)
            self.accounts = tuple(account for account in listed if account.enabled)
            if disabled := len(listed) - len(self.accounts):
                # Disabling is deliberate, so it fails no run, not even where nothing is left.
                log = self.logger.info if self.accounts else self.logger.warning
                line = "%d of %d accounts are disabled (enabled: false) and are skipped"
                log(line, disabled, len(listed))
            # Read, they are of no more use, and stream_maps may look into the tap's config.
            settings.pop("accounts", None)
        self.snapshot_at = snapshot_of_run(settings, began)
        catalog = None if catalog is None else complete_catalog(catalog)
        # The SDK reports at INFO that it reads no variables, which misleads those who set them.
        level = self.logger.level
        self.logger.setLevel(logging.WARNING)
        try:
            with signals_held(), naming_stream_maps(settings):
                # The SDK's own check would show values.
                super().__init__(config=settings, catalog=catalog, validate_config=False, **kwargs)
                if handle_signals:
                    # In place of the SDK's, which exits with status 0 and loses the failure.
                    for signum in (signal.SIGINT, signal.SIGTERM):
                        signal.signal(signum, self.shutdown.handle_signal)
        finally:
            self.logger.setLevel(level)

    @cached_property
    def client(self) -> BalanceClient:
        """The client for this run's accounts."""
        return BalanceClient(self.accounts, self.config["max_concurrency"])

    def discover_streams(self) -> list[BalanceStream]:
        """List the streams; no settings are needed and nothing is sent."""
        stream = BalanceStream(
            self,
            read_balances=self.read_balances,
            snapshot_at=self.snapshot_at,
            bookmark=self.bookmark,
        )
        return [stream]

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Keep the bookmark aside; it goes into the STATE if this run makes none of its own.

        Kept out of the tap's state, it does not cause the SDK to repeat it on stdout first.
        """
        bookmarks = state.get("bookmarks")
        bookmark = bookmarks.get(BalanceStream.name) if isinstance(bookmarks, dict) else None
        if isinstance(bookmark, dict):
            names = ("replication_key", "replication_key_value")
            self.bookmark |= {name: bookmark[name] for name in names if name in bookmark}

    def read_balances(self) -> Iterator[tuple[Account, Outcome]]:
        """Request the balances of all accounts, and yield each account as it completes.

        Raises:
            RunEndedError: A signal came.
        """
        limits = Limits(*(self.config[name] for name in Limits._fields))
        return fetch_all(self.client, self.accounts, limits, self.shutdown, self.logger)

    def check_accounts(self) -> None:
        """Check that every account works; no record is written.

        Each result is a line of the log or, where a person reads it, a row of a table.

        Raises:
            AccountsFailedError: At least one does not.
        """
        if on_terminal := sys.stderr.isatty():
            click.echo(_ROW.format("result", "product", "total balance", "account"), err=True)
        failures = 0
        for account, outcome in self.read_balances():
            if isinstance(outcome, AccountError):
                failures += 1
                result, total, line = "failed", "-", outcome.line(account.name)
            else:
                amounts = outcome.amounts
                currency = amounts.currency or account.currency or ""
                total = f"{exact_decimal(amounts.total_balance10000)} {currency}".rstrip()
                result, line = "works", f"account {account.name!r}"
            if on_terminal:
                row = result, account.product, total, line.removeprefix("account ")
                click.echo(_ROW.format(*row), err=True)
            elif result == "failed":
                self.logger.error("%s", line)
            else:
                self.logger.info("%s: works, total balance %s", line, total)
        if failures:
            raise AccountsFailedError(failures)

    @classmethod
    def from_command_line(cls, sources: Sequence[str], **kwargs: Any) -> TapBalance:  # noqa: ANN401
        """Make the tap of a command from what `--config` names, and let signals end its run.

        Raises:
            SettingsError: Something in the settings or the environment is wrong.
        """
        env = "ENV" in sources
        return cls(config=read_files(sources), parse_env_config=env, handle_signals=True, **kwargs)

    @classmethod
    def invoke(  # type: ignore[override]
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: Sequence[str] = (),
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
    ) -> None:
        """Run the tap: what the SDK's own method does, with stdout kept for Singer messages.

        Raises:
            SettingsError: Something in the settings, the environment or the catalog is wrong.
            AccountsFailedError: At least one account gave no balance; all else is written.
            RunEndedError: A signal came, or stdout cannot be written.
        """
        if about:
            cls.print_about(about_format)
            return
        cls.print_version(print_fn=cls.logger.info)
        try:
            selection = parse_json(catalog.read()) if catalog else None
        except ValueError as error:
            raise SettingsError(f"--catalog: the file {error}; make one with --discover") from None
        bookmarks = None
        with contextlib.suppress(ValueError):
            bookmarks = parse_json(state.read() or "{}") if state else {}
        if not isinstance(bookmarks, dict):
            # No state decides what is read, so a bad one is not worth the loss of a snapshot.
            cls.logger.warning("--state: the file is not a Singer state; it is ignored.")
            bookmarks = {}
        tap = cls.from_command_line(config, state=bookmarks, catalog=selection)
        stream = cast("BalanceStream", tap.streams[BalanceStream.name])
        maps = tap.mapper.stream_maps.get(BalanceStream.name, [])
        removed = maps and all(isinstance(one, RemoveRecordTransform) for one in maps)
        for found, where in (
            (not stream.selected, "--catalog: the stream balance is not selected"),
            (removed, "stream_maps: the stream balance is removed"),
        ):
            if found:
                raise SettingsError(
                    f"{where}, so nothing would be read; change that, or do not run the tap"
                )
        # Made before anything is written, so that a CA bundle that cannot be read ends it here.
        _ = tap.client
        # The messages' writer has kept the real stdout; a print of any library lands on stderr.
        with contextlib.redirect_stdout(sys.stderr), naming_stream_maps(tap.config):
            tap.sync_all()
        if stream.failures:
            raise AccountsFailedError(stream.failures)

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Make the command; `--test` takes a choice and has a text of its own."""
        command = super().get_singer_command()
        for option in command.params:
            if option.name in {"catalog", "state"}:
                # Opened when it is read: `--test` reads none, and Meltano passes one along and has
                # Python warn of open files.
                option.type = click.File(encoding="utf-8-sig", errors="replace", lazy=True)
            if isinstance(option, click.Option) and option.name == "test":
                option.type = click.Choice(["all", "schema"])
                option.default = None
                option.help = (
                    "Check that every account works; writes no records. "
                    "--test=schema prints the SCHEMA message without sending requests."
                )
        return command

    @classmethod
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:  # noqa: ANN401, ARG003
        """Keep what `--config` names; it is read when the settings are needed."""
        return value

    @classmethod
    def cb_discover(cls, ctx: click.Context, param: click.Option, value: bool) -> None:  # noqa: ARG003, FBT001
        """Print the catalog for `--discover`, which needs no settings."""
        if value:
            cls(validate_config=False, setup_mapper=False).run_discovery()
            ctx.exit()

    @classmethod
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str | None) -> None:  # noqa: ARG003
        """Check every account for `--test`; the SDK would stop after the first record."""
        if value is None:
            return
        tap = cls.from_command_line(ctx.params.get("config", ()))
        if value == "schema":
            tap.write_schemas()
        else:
            tap.check_accounts()
        ctx.exit()


# The SDK would add its own settings, such as stream_maps, when it makes the first tap.
TapBalance.append_builtin_config(TapBalance.config_jsonschema)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the run's own handlers are there (not on Windows)."""
    hold = getattr(signal, "pthread_sigmask", None)
    before = hold(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}) if hold else None
    try:
        yield
    finally:
        if hold:
            hold(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def naming_stream_maps(settings: Mapping[str, Any]) -> Iterator[None]:
    """Name the setting where an expression in it fails: it is the user's own code.

    Raises:
        MappingError: Something failed, and there are stream maps.
    """
    try:
        yield
    except SingerSDKError:
        raise
    except Exception as error:
        if not settings.get("stream_maps"):
            raise
        raise MappingError(f"an expression fails with {type(error).__name__}.") from error
