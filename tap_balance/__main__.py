"""The command `tap-balance`, as a script and as `python -m tap_balance`."""

from __future__ import annotations

import gc
import os
import signal
import warnings


def main() -> None:
    """Run the command and end the process."""
    # Until the tap takes over, Ctrl-C ends the process as it ends `cat`: without a traceback,
    # not even in the half second that the imports take. That is why they come after it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The SDK warns of every Python past its end of life when it is imported; under `-W error`
    # that would end the run of a tap that supports it.
    warnings.filterwarnings("ignore", "Python 3.1[0-9] (reached|will reach) its end of life")
    # What the imports make stays until the end; searching it for garbage is an eighth of a start.
    gc.disable()
    from tap_balance.cli import run  # noqa: PLC0415

    gc.freeze()
    gc.enable()

    # Everything is written. Taking the interpreter apart would cost a sixth of a short run's time,
    # and after a signal it would wait for requests that nobody waits for any more.
    os._exit(run())


if __name__ == "__main__":
    main()
