"""A tap as the SDK's template makes it: a `RESTStream` with one partition per account."""

from __future__ import annotations

from typing import Any, ClassVar

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import BasicAuthenticator

FIELDS = ("balance10000", "gift_balance10000", "total_balance10000")


class Balance(RESTStream[Any]):
    name = "balance"
    path = "/v1/balance"
    records_jsonpath = "$"
    primary_keys: ClassVar[tuple[str, ...]] = ("account", "snapshot_at")
    replication_key = "snapshot_at"
    schema = th.PropertiesList(
        th.Property("account", th.StringType),
        th.Property("snapshot_at", th.DateTimeType),
        *(th.Property(name, th.IntegerType) for name in FIELDS),
    ).to_dict()

    @property
    def url_base(self) -> str:
        return str(self.config["base_url"])

    @property
    def partitions(self) -> list[dict[str, Any]]:
        return [{"account": entry["account"]} for entry in self.config["accounts"]]

    def prepare_request(self, context: Any, next_page_token: Any) -> Any:  # noqa: ANN401
        entry = self._tap.by_name[context["account"]]  # type: ignore[attr-defined]
        request = super().prepare_request(context, next_page_token)
        return BasicAuthenticator(username=entry["dev_key"], password=entry["dev_secret"])(request)

    def post_process(self, row: Any, context: Any = None) -> dict[str, Any]:  # noqa: ANN401
        return {
            "account": context["account"],
            "snapshot_at": self._tap.now,  # type: ignore[attr-defined]
            **{name: row[name] for name in FIELDS},
        }


class StockTap(Tap):
    name = "tap-stock"
    config_jsonschema: ClassVar[dict[str, Any]] = th.PropertiesList(
        th.Property("base_url", th.StringType),
        th.Property("accounts", th.ArrayType(th.ObjectType(additional_properties=True))),
    ).to_dict()
    now = "2026-01-31T10:00:00Z"

    def discover_streams(self) -> list[Balance]:
        self.by_name = {entry["account"]: entry for entry in self.config.get("accounts", [])}
        return [Balance(self)]


if __name__ == "__main__":
    StockTap.cli()
