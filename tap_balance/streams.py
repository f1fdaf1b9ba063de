"""The stream `balance`: what a record is, its key, its catalog, its STATE."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from singer_sdk import Tap
from singer_sdk.helpers.types import Context, Record
from singer_sdk.singerlib import Catalog, Metadata, MetadataMapping, Schema, StreamMetadata
from singer_sdk.streams import Stream

from tap_balance.accounts import Account
from tap_balance.amounts import exact_decimal
from tap_balance.client import Balance
from tap_balance.concurrency import Outcome
from tap_balance.config import read_schema
from tap_balance.errors import AccountError, RunEndedError, SettingsError

SCHEMA = read_schema("balance.json")
"""The contract: field by field with description, unit and source."""

ALWAYS_SELECTED = (
    *("snapshot_id", "account", "snapshot_at", "observed_at"),
    *("balance10000", "gift_balance10000", "total_balance10000"),
)
"""Without these, a repeated run in one interval would leave a row with parts of both."""


class BalanceStream(Stream):
    """Snapshots of balances, one record per account of the run.

    A balance has no history at the source: whatever the state says, a run reads the current
    balances. The stream is INCREMENTAL nevertheless, because a FULL_TABLE stream allows a target
    to drop the older rows, and the older rows are the product.

    Args:
        tap: The tap.
        read_balances: Yields each account, as it completes, with its balance or its error.
        snapshot_at: Start of the interval that the run belongs to.
        bookmark: What an earlier run left in the STATE for this stream.
    """

    name = "balance"
    primary_keys: ClassVar[tuple[str, ...]] = ("snapshot_id",)
    replication_key = "snapshot_at"
    # All records of a run carry the same snapshot_at. A state ahead of the clock is no reason to
    # lose this run's records, so the order is not compared with it.
    is_sorted = True
    check_sorted = False
    STATE_MSG_FREQUENCY = sys.maxsize  # one STATE, after the last record

    def __init__(
        self,
        tap: Tap,
        *,
        read_balances: Callable[[], Iterable[tuple[Account, Outcome]]],
        snapshot_at: str,
        bookmark: Mapping[str, Any],
    ) -> None:
        super().__init__(tap, schema=copy.deepcopy(SCHEMA))
        self._read_balances = read_balances
        self._snapshot_at = snapshot_at
        self._bookmark = bookmark
        self.failures = 0
        """Accounts that gave no balance in this run."""

    def get_records(self, context: Context | None) -> Iterable[Record]:  # noqa: ARG002
        """Read the balance of every account and yield a record for each that has one.

        A failure is logged when it happens; it fails the run when all else is written.

        Raises:
            RunEndedError: A signal came. The STATE for the records yielded so far is written.
        """
        # If there is no balance at all, the bookmark stays what it was.
        self.stream_state.update(self._bookmark)
        try:
            for account, outcome in self._read_balances():
                if isinstance(outcome, AccountError):
                    self.failures += 1
                    self.logger.error("%s", outcome.line(account.name))
                    continue
                for warning in outcome.amounts.warnings:
                    line = "account %r: %s; the record has what the x10000 integers say"
                    self.logger.warning(line, account.name, warning)
                yield make_record(account, outcome, self._snapshot_at)
        except RunEndedError:
            self.finalize_state_progress_markers()
            raise

    @property
    def metadata(self) -> MetadataMapping:
        """The catalog's metadata; what keeps a row whole cannot be deselected."""
        metadata = super().metadata
        for field in ALWAYS_SELECTED:
            metadata["properties", field].inclusion = Metadata.InclusionType.AUTOMATIC
        return metadata

    def apply_catalog(self, catalog: Catalog) -> None:
        """Take the selection from a catalog, and warn of a method that can lose rows."""
        super().apply_catalog(catalog)
        if self.forced_replication_method not in {None, "INCREMENTAL"}:
            self.logger.warning(
                "The catalog requests %s: a target may then drop older snapshots, which cannot be "
                "read again. Set the replication method to INCREMENTAL.",
                self.forced_replication_method,
            )

    def get_replication_key_signpost(self, context: Context | None = None) -> None:
        """Set no limit to the bookmark: a scheduler's snapshot_at may be ahead of the clock."""


def with_decimals(schema: dict[str, Any]) -> dict[str, Any]:
    """Put `precision` and `scale` back into the schema of a SCHEMA message.

    The SDK's `Schema` class drops them, and without them Snowflake stores 12 for 12.3456.
    """
    schema = copy.deepcopy(schema)
    for field, written in schema["properties"].items():
        contract = SCHEMA["properties"].get(field, {})
        if written.get("format") == contract.get("format") == "x-singer.decimal":
            written.update({keyword: contract[keyword] for keyword in ("precision", "scale")})
    return schema


def make_record(account: Account, balance: Balance, snapshot_at: str) -> Record:
    """Make the record of one account."""
    amounts = balance.amounts
    return {
        "snapshot_id": f"{account.name}@{snapshot_at}",
        "account": account.name,
        "product": account.product,
        "snapshot_at": snapshot_at,
        "observed_at": balance.observed_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "currency": amounts.currency or account.currency,
        "balance10000": amounts.balance10000,
        "gift_balance10000": amounts.gift_balance10000,
        "total_balance10000": amounts.total_balance10000,
        "balance": exact_decimal(amounts.balance10000),
        "gift_balance": exact_decimal(amounts.gift_balance10000),
        "total_balance": exact_decimal(amounts.total_balance10000),
    }


def complete_catalog(catalog: Any) -> Catalog:  # noqa: ANN401
    """Give the stream in a catalog its key and its replication key, whatever the catalog says.

    Without the key, a target would append where it should replace; a catalog that was written by
    hand often has none.

    Raises:
        SettingsError: It is not a catalog.
    """
    try:
        found: Catalog = catalog if isinstance(catalog, Catalog) else Catalog.from_dict({**catalog})
        if entry := found.get_stream(BalanceStream.name):
            entry.key_properties = list(BalanceStream.primary_keys)
            entry.replication_key = BalanceStream.replication_key
            entry.schema.properties = entry.schema.properties or {}
            # Without a line for the stream, the SDK would select nothing in it.
            entry.metadata.setdefault((), StreamMetadata(selected=True))
            for field in ALWAYS_SELECTED:
                contract = Schema.from_dict(SCHEMA["properties"][field])
                entry.schema.properties.setdefault(field, contract)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SettingsError(
            "--catalog: the file is not a Singer catalog; make one with --discover"
        ) from None
    return found
