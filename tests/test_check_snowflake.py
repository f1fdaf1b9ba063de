"""What `make check-snowflake` wants from the environment; the checks themselves run elsewhere."""

from __future__ import annotations

import pytest
from check_snowflake import connection

COMPLETE = {
    "SNOWFLAKE_ACCOUNT": "ORGANISATION-ACCOUNT",
    "SNOWFLAKE_USER": "CHECKER",
    "SNOWFLAKE_DATABASE": "SCRATCH",
    "SNOWFLAKE_WAREHOUSE": "SMALL",
    "SNOWFLAKE_PASSWORD": "not-a-password",
}


def test_it_connects_with_what_is_set() -> None:
    assert connection(COMPLETE | {"SNOWFLAKE_ROLE": ""}) == {
        "account": "ORGANISATION-ACCOUNT",
        "user": "CHECKER",
        "database": "SCRATCH",
        "warehouse": "SMALL",
        "password": "not-a-password",
    }


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "SNOWFLAKE_ACCOUNT, SNOWFLAKE_USER, SNOWFLAKE_DATABASE, SNOWFLAKE_WAREHOUSE, one of"),
        (COMPLETE | {"SNOWFLAKE_DATABASE": ""}, "set SNOWFLAKE_DATABASE in"),
        (
            COMPLETE | {"SNOWFLAKE_PRIVATE_KEY_PATH": "key.p8"},
            "set one of SNOWFLAKE_PASSWORD and SNOWFLAKE_PRIVATE_KEY_PATH in",
        ),
    ],
)
def test_what_is_missing_is_one_line_without_a_secret(
    environment: dict[str, str], named: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        connection(environment)
    line = str(ended.value)
    assert line.startswith("check-snowflake: ")
    assert named in line
    assert "\n" not in line
    assert "not-a-password" not in line
