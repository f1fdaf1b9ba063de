"""The tap, at an instant of the test's choosing: TEST_CLOCK holds it, in ISO 8601.

A destination's time zone and daylight-saving time cannot be tested with the clock on the wall.
Everything else is the command `tap-balance`.
"""

from __future__ import annotations

import datetime as dt
import os
import time

import pendulum

from tap_balance.__main__ import main

NOW = pendulum.instance(dt.datetime.fromisoformat(os.environ["TEST_CLOCK"]))

time.time = NOW.timestamp  # the SDK's, for the moment that the run began
pendulum.now = lambda tz=None: NOW.in_timezone(tz or "UTC")  # the client's, for `observed_at`

main()
