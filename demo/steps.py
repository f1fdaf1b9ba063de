"""The steps of a demo: announced and timed, and if one fails, which command it was and why."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import meltano_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ALIVE_EVERY = 2.0
"""Seconds between two signs of life in a long step."""

LAST_LINES = 20


class StepError(Exception):
    """A step failed.

    Args:
        what: What failed.
        output: What it printed; the last lines are shown.
        log: Where the rest is.
    """

    def __init__(self, what: str, output: str = "", log: Path | None = None) -> None:
        lines = [f"  {line}" for line in output.strip().splitlines()[-LAST_LINES:]]
        if lines:
            what += ". Its last lines:"
        super().__init__("\n".join([what, *lines, *([f"The rest is in {log}."] if log else [])]))


def run_command(
    command: Sequence[str | Path], log: Path, *, env: Mapping[str, str], cwd: Path | None = None
) -> None:
    """Run a command to its end; append what it prints to a file.

    Raises:
        StepError: It is missing, or its exit status is not 0.
    """
    if not Path(command[0]).exists():
        msg = f"{command[0]} is missing: run `make clean`, then the demo again"
        raise StepError(msg)
    with log.open("a+", encoding="utf-8", errors="replace") as file:
        begin = file.tell()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        file.seek(begin)
        if status:
            raise StepError(failed(command, status), file.read(), log)


def failed(command: Sequence[str | Path], status: int) -> str:
    """Name a command and its exit status; of long arguments (SQL), the beginning."""
    words = [Path(command[0]).name, *map(str, command[1:])]
    shown = [shlex.quote(word if len(word) <= 80 else f"{word[:80]}...") for word in words]  # noqa: PLR2004
    return f"{' '.join(shown)} failed with exit status {status}"


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, show that it is alive while it lasts, and print how long it took."""
    started = time.monotonic()
    done = threading.Event()
    print(f"{title} .", end="", flush=True)

    def show_life() -> None:
        while not done.wait(ALIVE_EVERY):
            print(".", end="", flush=True)

    dots = threading.Thread(target=show_life, daemon=True)
    dots.start()
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    else:
        print(f" {time.monotonic() - started:.1f} s", flush=True)
    finally:
        done.set()
        dots.join()


def say(text: str) -> None:
    """Print, at once."""
    print(text, flush=True)


def start(demo: Callable[[], None]) -> None:
    """Run a demo; Ctrl-C and a step that fails end it without a traceback."""
    meltano_project.forget_the_users_settings()
    try:
        demo()
    except KeyboardInterrupt:
        say("\nInterrupted; everything that was started is stopped.")
        sys.exit(130)
    except StepError as error:
        fail(str(error))
    except subprocess.CalledProcessError as error:
        output = "\n".join(text for text in (error.stdout, error.stderr) if text)
        fail(str(StepError(failed(error.cmd, error.returncode), output)))
    except OSError as error:  # a folder that cannot be written, a full disk, a missing command
        fail(f"{error.strerror}: {error.filename}" if error.filename else str(error))


def fail(reason: str) -> NoReturn:
    """End with exit status 1 and a reason."""
    sys.exit(f"\nThe demo failed, and everything that was started is stopped.\n{reason}")
