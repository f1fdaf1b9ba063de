"""The settings: the type, range, default and meaning of each, declared once."""

from __future__ import annotations

from typing import Any

from singer_sdk import typing as th

from tap_balance.accounts import LONGEST_NAME, PRODUCTS

_PRODUCT: th.Property[Any] = th.Property(
    "product",
    th.StringType,
    allowed_values=list(PRODUCTS),
    default="sms",
    title="Product",
    description="EngageLab product of the account, which decides the body to expect: sms or otp.",
)
_BASE_URL = th.Property(
    "base_url",
    th.StringType,
    title="Base URL",
    description=(
        "Where to ask instead of the product's own address. https only, except on loopback; "
        "no user and password in it; a path prefix is kept."
    ),
)
_CURRENCY = th.Property(
    "currency",
    th.StringType(pattern="^[A-Z]{3}$"),
    title="Currency",
    description="ISO 4217 code for the records of sms accounts, whose answer names no currency.",
)

SETTINGS: dict[str, Any] = th.PropertiesList(
    th.Property(
        "dev_key",
        th.StringType,
        title="Dev key",
        description="API key of the single account; the user name of HTTP Basic.",
    ),
    th.Property(
        "dev_secret",
        th.StringType,
        secret=True,
        title="Dev secret",
        description="API secret of the single account; the password of HTTP Basic.",
    ),
    th.Property(
        "account",
        th.StringType(max_length=LONGEST_NAME),
        default="default",
        title="Account",
        description="Name that the records of the single account carry.",
    ),
    th.Property(
        "accounts",
        th.ArrayType(
            th.ObjectType(
                th.Property(
                    "account",
                    th.StringType(max_length=LONGEST_NAME),
                    required=True,
                    description="Name that the records carry; different for each account.",
                ),
                th.Property("dev_key", th.StringType, required=True, description="API key."),
                th.Property(
                    "dev_secret",
                    th.StringType,
                    required=True,
                    secret=True,
                    description="API secret.",
                ),
                th.Property(
                    "product", th.StringType, allowed_values=list(PRODUCTS), description="Product."
                ),
                _BASE_URL,
                _CURRENCY,
                additional_properties=False,
            ),
        ),
        secret=True,
        title="Accounts",
        description=(
            "Several accounts, instead of dev_key, dev_secret and account: a list of objects with "
            "account, dev_key, dev_secret, and optionally product, base_url and currency, which "
            "else come from the settings of the same name."
        ),
    ),
    th.Property(
        "accounts_file",
        th.StringType,
        title="Accounts file",
        description=(
            "Path of a file with the accounts, instead of accounts: a JSON array, or JSON Lines, "
            "of such objects. Needed through Meltano from about 1,300 accounts on, since it hands "
            "every setting over in an environment variable, which Linux limits to 128 KiB."
        ),
    ),
    _PRODUCT,
    _BASE_URL,
    _CURRENCY,
    th.Property(
        "snapshot_interval",
        th.StringType,
        default="PT1S",
        title="Snapshot interval",
        description=(
            "ISO 8601 duration that divides a day. Runs within one interval write the same key, "
            "so that an upserting target keeps one row per account and interval. Set it to the "
            "schedule, such as PT1H."
        ),
    ),
    th.Property(
        "request_timeout",
        th.NumberType(exclusive_minimum=0, maximum=3600),
        default=30,
        title="Request timeout",
        description="Seconds for one answer, from the first byte sent to the last one received "
        "(connecting: at most 10).",
    ),
    th.Property(
        "max_attempts",
        th.IntegerType(minimum=1, maximum=100),
        default=5,
        title="Most attempts",
        description="Tries per account, the first included.",
    ),
    th.Property(
        "max_elapsed",
        th.NumberType(minimum=1, maximum=86_400),
        default=120,
        title="Most seconds per account",
        description="Seconds per account, retries and waits included.",
    ),
    th.Property(
        "max_concurrency",
        th.IntegerType(minimum=1, maximum=1000),
        default=32,
        title="Most requests at once",
        description="Requests in flight at most.",
    ),
    th.Property(
        "shard",
        th.StringType,
        title="Shard",
        description=(
            "i/n, i from 1 to n: this run takes the i-th of n slices of the accounts. An "
            "account's name decides on its slice, so that another account more moves none."
        ),
    ),
).to_dict()
