"""JSON as its standard has it: Python's parser also takes NaN and Infinity, which are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def loads(text: str | bytes, **hooks: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    """Parse a document.

    Args:
        text: The document.
        hooks: As `json.loads` takes them.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deep.
    """
    return json.loads(text, parse_constant=_refuse, **hooks)  # type: ignore[arg-type]


def _refuse(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
