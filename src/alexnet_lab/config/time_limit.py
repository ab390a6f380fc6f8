"""`trainer.max_time` in seconds, from any form that Lightning accepts."""

import re
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alexnet_lab.errors import UserError

DAYS_TO_SECONDS = re.compile(r"(\d+):(\d\d):(\d\d):(\d\d)")
AMBIGUOUS = re.compile(r"\d+:\d+")
FORMS = "DD:HH:MM:SS (in YAML within quotes), {hours: 1, minutes: 30}, or a timedelta like '1 day, 0:30:00'"


def max_seconds(value: Any) -> float | None:
    """The limit in seconds; None if there is no limit.

    Raises:
        UserError: not a valid form, or not above 0.
    """
    if value is None:
        return None
    try:
        seconds = _duration(value).total_seconds()
    except (TypeError, ValueError, OverflowError, ValidationError) as error:
        raise UserError(f"trainer.max_time={value}: expected {FORMS}") from error
    if seconds <= 0:
        raise UserError(f"trainer.max_time={value}: it must be above 0")
    return seconds


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, dict):
        return timedelta(**value)
    if not isinstance(value, str) or AMBIGUOUS.fullmatch(value.strip()):
        raise ValueError
    if found := DAYS_TO_SECONDS.fullmatch(value.strip()):
        days, hours, minutes, seconds = map(int, found.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    return TypeAdapter(timedelta).validate_python(value.strip())
