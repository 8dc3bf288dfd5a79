"""Cron expressions with cron's own meaning, evaluated by APScheduler.

APScheduler counts weekdays from Monday and, if both a day of the month and a weekday are given, waits for a day that is both. cron
counts from Sunday and takes either. Weekdays are therefore translated to names, and giving both is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

FIELDS = ("minute", "hour", "day", "month", "day_of_week")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 3 * * *",
    "@nightly": "0 3 * * *",
    "@weekly": "0 3 * * 0",
    "@monthly": "0 3 1 * *",
}


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """The moments that a cron expression names, in local time."""

    text: str
    """The expression as the user wrote it."""
    _trigger: Any = field(compare=False, repr=False)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first moment later than `moment`, in UTC; the greatest `datetime` if there is none."""
        found: datetime | None = self._trigger.get_next_fire_time(None, moment.astimezone(UTC) + timedelta(microseconds=1))
        return found.astimezone(UTC) if found is not None else datetime.max.replace(tzinfo=UTC)


def parse_cron(text: str, zone: tzinfo | None = None) -> CronSchedule:
    """Parse five cron fields or a shorthand such as `@daily`; `zone` is this machine's unless given.

    Raises `ValueError`, with a sentence for the user, for anything else and for days that never come.
    """
    fields = SHORTHANDS.get(text.strip(), text).split()
    if len(fields) != len(FIELDS) or not text.isascii() or len(text) > 200:
        raise ValueError('write five fields: minute, hour, day, month, weekday, as in "0 3 * * *" for every night at three')
    minute, hour, day, month, weekday = fields
    if day != "*" and weekday != "*":
        raise ValueError("day of the month and weekday cannot both be given; leave one of them *")
    trigger = _trigger(minute=minute, hour=hour, day=day, month=month, day_of_week=_weekday_names(weekday), timezone=zone)
    # For a day that never comes, such as 31 February, the trigger itself would search up to the year 9999.
    # Eight years always hold a leap day.
    day_only = _trigger(day=day, month=month, timezone=UTC, end_date=datetime(2032, 12, 31, tzinfo=UTC))
    if day_only.get_next_fire_time(None, datetime(2025, 1, 1, tzinfo=UTC)) is None:
        raise ValueError("there is no such day of the month; choose one that exists")
    return CronSchedule(text, trigger)


def _trigger(**fields: Any) -> Any:
    from apscheduler.triggers.cron import CronTrigger  # imported late: only commands that schedule something need it

    return CronTrigger(**fields)


def _weekday_names(text: str) -> str:
    """Return a cron weekday field as a list of names, with ranges and steps expanded; 0 and 7 are both Sunday."""
    if text == "*":
        return text
    found: set[int] = set()
    for part in text.lower().split(","):
        span, _, step = part.partition("/")
        if step and (not step.isdigit() or not 1 <= int(step[:3]) <= 7):
            raise ValueError(f"{step!r} is not a step of weekdays; give a number from 1 to 7")
        if span == "*":
            span = "0-6"
        first, dash, last = span.partition("-")
        start = _weekday_number(first)
        if dash:
            end = _weekday_number(last, start)
        else:
            end = 6 if step else start  # cron reads 2/3 as 2-6/3
        found.update(number % 7 for number in range(start, end + 1, int(step or 1)))
    return ",".join(WEEKDAYS[number] for number in sorted(found))


def _weekday_number(word: str, at_least: int = 0) -> int:
    """Return the number of a weekday given as a name or number; `at_least` tells Sunday as 7 from Sunday as 0 at a range's end."""
    for number, name in enumerate(WEEKDAYS):
        if word in (name, str(number)) and number >= at_least:
            return number
    raise ValueError(f"{word!r} is not a weekday; use 0 to 7 or sun to sat")
