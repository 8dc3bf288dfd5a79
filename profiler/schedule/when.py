"""Cron expressions as cron reads them, on APScheduler, which counts weekdays from Monday and wants both days to be met."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

FIELDS = ("minute", "hour", "day", "month", "day_of_week")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
WORDS = {"@hourly": "0 * * * *", "@daily": "0 3 * * *", "@nightly": "0 3 * * *", "@weekly": "0 3 * * 0", "@monthly": "0 3 1 * *"}


@dataclass(frozen=True, slots=True)
class When:
    """The moments at which something is due, in local time."""

    text: str
    _trigger: Any = field(compare=False, repr=False)

    def after(self, moment: datetime) -> datetime:
        """The first one later than this, in UTC."""
        found: datetime | None = self._trigger.get_next_fire_time(None, moment.astimezone(UTC) + timedelta(microseconds=1))
        return found.astimezone(UTC) if found is not None else datetime.max.replace(tzinfo=UTC)


def parse_when(text: str, zone: tzinfo | None = None) -> When:
    """`ValueError`, in words, for what is no cron expression."""
    fields = WORDS.get(text.strip(), text).split()
    if len(fields) != len(FIELDS) or not text.isascii() or len(text) > 200:
        raise ValueError('it needs five fields: minute, hour, day, month, weekday, as in "0 3 * * *" for every night at three')
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError("day of the month and weekday cannot both be given; leave one of them *")
    named = dict(zip(FIELDS, [*fields[:4], _weekdays(fields[4])], strict=True))
    when = When(text, _trigger(**named, timezone=zone))
    if not _possible(named["day"], named["month"]):
        raise ValueError("there is no such day")
    return when


def _trigger(**fields: Any) -> Any:
    from apscheduler.triggers.cron import CronTrigger  # of no use to the commands that schedule nothing

    return CronTrigger(**fields)


def _possible(day: str, month: str) -> bool:
    """Whether such a day comes in the next years: the trigger would look for it up to the year 9999."""
    trigger = _trigger(day=day, month=month, timezone=UTC, end_date=datetime(2032, 12, 31, tzinfo=UTC))
    return trigger.get_next_fire_time(None, datetime(2028, 1, 1, tzinfo=UTC)) is not None


def _weekdays(text: str) -> str:
    """Numbers as names, ranges spelt out: 0 and 7 are Sunday."""
    if text == "*":
        return text
    found = {number % 7 for part in text.lower().split(",") for number in _range(part)}
    return ",".join(WEEKDAYS[number] for number in sorted(found))


def _range(part: str) -> range:
    span, _, step = part.partition("/")
    first, dash, last = ("0", "-", "6") if span == "*" else span.partition("-")
    start = _weekday(first)
    end = _weekday(last, start) if dash else 6 if step else start
    if step and (not step.isdigit() or not 1 <= int(step[:3]) <= 7):
        raise ValueError(f"{step!r} is no step of weekdays")
    return range(start, end + 1, int(step or 1))


def _weekday(word: str, at_least: int = 0) -> int:
    found = [number for number, name in enumerate(WEEKDAYS) if word in (name, str(number)) and number >= at_least]
    if not found:
        raise ValueError(f"{word!r} is no weekday")
    return found[0]
