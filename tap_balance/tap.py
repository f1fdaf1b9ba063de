"""TapBalance: the plugin that the SDK runs, with its settings, its stream and its commands."""

from __future__ import annotations

import contextlib
import copy
import os
import select
import sys
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

import pendulum
from singer_sdk import Tap
from singer_sdk.helpers.capabilities import PluginCapabilities, TapCapabilities
from singer_sdk.io_base import SingerWriter
from singer_sdk.mapper import RemoveRecordTransform

from tap_balance.accounts import read_accounts, read_accounts_file
from tap_balance.amounts import exact_decimal
from tap_balance.client import BalanceClient, Limits
from tap_balance.concurrency import Shutdown, fetch_all
from tap_balance.config import (
    SETTINGS,
    check_types,
    read_config,
    read_environment,
    unknown_settings,
    with_defaults,
)
from tap_balance.errors import AccountError, AccountsFailedError, RunEndedError, SettingsError
from tap_balance.snapshots import parse_interval, snapshot_of
from tap_balance.streams import BalanceStream, complete_catalog, read_catalog, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    import click
    from singer_sdk.helpers.capabilities import CapabilitiesEnum
    from singer_sdk.plugin_base import _ConfigInput
    from singer_sdk.singerlib import Catalog, Message

    from tap_balance.accounts import Account
    from tap_balance.concurrency import Outcome
    from tap_balance.snapshots import Snapshot


class StdoutWriter(SingerWriter):
    """Writes Singer messages to what was stdout when the tap was made."""

    def __init__(self) -> None:
        super().__init__()
        self._stdout = sys.stdout
        real = sys.__stdout__
        self._descriptor = real.fileno() if real is not None and real is sys.stdout else None

    def write_message(self, message: Message) -> None:
        """Write one message.

        Raises:
            RunEndedError: Nobody reads stdout any more, or its disk is full.
        """
        line = self.format_message(message) + "\n"
        try:
            if self._descriptor is None:
                self._stdout.write(line)
            else:
                _write_whole(self._descriptor, line.encode())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = f"cannot write to stdout ({reason}); the target has probably ended"
            raise RunEndedError(msg, exit_status=1) from error


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
    # Neither BATCH, since there is one record per account, nor ACTIVATE_VERSION, which tells a
    # target to drop the older rows.
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
        catalog: Catalog | dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        self.shutdown = Shutdown()
        self.accounts: tuple[Account, ...] = ()
        self.bookmark: dict[str, Any] = {}
        super().__init__(catalog=None if catalog is None else complete_catalog(catalog), **kwargs)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The interval that this run belongs to, by the moment at which the tap was made."""
        began = pendulum.from_timestamp(self.initialized_at / 1000)
        return snapshot_of(began, parse_interval(self.config["snapshot_interval"]))

    @cached_property
    def client(self) -> BalanceClient:
        """The client for this run's accounts."""
        return BalanceClient(self.accounts, self.config["max_concurrency"])

    def discover_streams(self) -> list[BalanceStream]:
        """List the streams; no settings are needed and nothing is sent."""
        return [BalanceStream(self)]

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Keep the bookmark aside; it goes into the STATE if this run makes none of its own.

        Kept out of the tap's state, it does not cause the SDK to repeat it on stdout first.
        """
        bookmarks = state.get("bookmarks")
        bookmark = bookmarks.get(BalanceStream.name) if isinstance(bookmarks, dict) else None
        if isinstance(bookmark, dict):
            names = ("replication_key", "replication_key_value")
            self.bookmark = {name: bookmark[name] for name in names if name in bookmark}

    def outcomes(self) -> Iterator[tuple[Account, Outcome]]:
        """Request the balances of all accounts, and yield each account as it completes."""
        return fetch_all(
            self.client,
            self.accounts,
            limits=Limits(*(self.config[name] for name in Limits._fields)),
            shutdown=self.shutdown,
            logger=self.logger,
        )

    def try_accounts(self) -> None:
        """Ask for every account and tell for each whether it works; no record is written.

        Raises:
            AccountsFailedError: At least one does not.
        """
        failures = 0
        for account, outcome in self.outcomes():
            if isinstance(outcome, AccountError):
                failures += 1
                self.logger.error("%s", outcome.line(account.name))
            else:
                total = exact_decimal(outcome.amounts.total_balance10000)
                self.logger.info("account %r: works, total balance %s", account.name, total)
        self.client.close()
        if failures:
            raise AccountsFailedError(failures)

    @classmethod
    def from_command_line(cls, config: _ConfigInput | None, **kwargs: Any) -> TapBalance:  # noqa: ANN401
        """Make the tap from what the command line gave.

        Raises:
            SettingsError: Something in the settings or the environment is wrong.
        """
        settings = dict(config.config) if config else {}
        if config and config.parse_env:
            cls.append_builtin_config(cls.config_jsonschema)
            settings |= read_environment(cls.config_jsonschema, cls._env_var_prefix)
        tap = cls(config=settings, **kwargs)
        if config:
            config.config.clear()  # thousands of accounts are in memory as accounts by now
        return tap

    @classmethod
    def invoke(  # type: ignore[override]
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: _ConfigInput | None = None,
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
    ) -> None:
        """Run the tap: what the SDK's own method does, with stdout kept for Singer messages."""
        if about:
            cls.print_about(about_format)
            return
        cls.print_version(print_fn=cls.logger.info)
        tap = cls.from_command_line(
            config,
            state=read_state(state, cls.logger) if state else None,
            catalog=read_catalog(catalog) if catalog else None,
        )
        if not any(stream.selected for stream in tap.streams.values()):
            msg = (
                f"--catalog: the stream {BalanceStream.name} is not selected, so nothing would be "
                "read; select it, or do not run the tap"
            )
            raise SettingsError(msg)
        maps = tap.mapper.stream_maps.get(BalanceStream.name, [])
        if maps and all(isinstance(stream_map, RemoveRecordTransform) for stream_map in maps):
            msg = (
                f"stream_maps: the stream {BalanceStream.name} is removed, so nothing would be "
                "read; keep it, or do not run the tap"
            )
            raise SettingsError(msg)
        # Made before anything goes out, so that a CA bundle that cannot be read ends it here.
        _ = tap.client
        # The messages' writer has kept the real stdout; a print of any library lands on stderr.
        with contextlib.redirect_stdout(sys.stderr):
            tap.sync_all()

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Make the command; `--test` says what it does here."""
        command = super().get_singer_command()
        for option in command.params:
            if option.name == "test":
                cast("click.Option", option).help = (
                    "Try every account, and write no record. "
                    "--test=schema writes the SCHEMA message and asks nobody."
                )
        return command

    @classmethod
    def cb_config(
        cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]
    ) -> _ConfigInput:
        """Read the config files; the SDK's reader answers a bad one with a traceback."""
        config = super().cb_config(ctx, param, tuple(path for path in value if path == "ENV"))
        for path in value:
            if path != "ENV":
                config.config |= read_config(path)
        return config

    @classmethod
    def cb_test(
        cls,
        ctx: click.Context,
        param: click.Option,
        value: str,
    ) -> None:
        """Try every account for `--test`; the SDK would stop after the first record."""
        if value != "all":
            super().cb_test(ctx, param, value)
            return
        for name in ("catalog", "state"):
            if file := ctx.params.get(name):
                file.close()  # Meltano passes a catalog along, and has Python warn of open files
        cls.from_command_line(ctx.params.get("config")).try_accounts()
        ctx.exit()

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Check the settings; the SDK's own check would show their values."""
        self.append_builtin_config(self.config_jsonschema)
        for line in unknown_settings(self._config, self.config_jsonschema):
            self.logger.warning("%s", line)
        try:
            checked = check_types(self._config, self.config_jsonschema)
            path = checked.get("accounts_file")
            self.accounts = read_accounts(checked, read_accounts_file(path) if path else ())
        except SettingsError as error:
            if raise_errors:
                raise
            self._config = with_defaults(self._config, self.config_jsonschema)
            return list(error.problems)
        # Read, they are of no more use here, and stream_maps may look into this config.
        self._config = {name: value for name, value in checked.items() if name != "accounts"}
        return []

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End the run in order; the SDK would exit with status 0 and lose the failure."""
        self.shutdown.handle_signal(signum)
