"""The SDK's own suite for taps, against the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bank import serving
from singer_sdk.testing import get_tap_test_class

from tap_balance.sandbox import Sandbox, settings_of
from tap_balance.tap import TapBalance

if TYPE_CHECKING:
    from collections.abc import Iterator

# The suite's class is made when this file is read, so the server is there by then; it only
# answers while the tests run.
_SERVER = Sandbox()


@pytest.fixture(autouse=True, scope="module")
def _serve() -> Iterator[None]:
    with _SERVER, serving(_SERVER):
        yield


TestTapBalance = get_tap_test_class(
    TapBalance,
    config=settings_of(_SERVER.url, "example", "main", "otp", "largest"),
    parse_env_config=False,
)
