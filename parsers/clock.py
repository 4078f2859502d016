"""The stamps that syslog daemons write, and the point in time they mean.

A BSD stamp (RFC 3164) has neither year nor zone; both are settled by what is near: a time that the caller knows to be
close to the newest line, and the lines before, as a log goes forward.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

STAMP: Final = (
    r"(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d(?::?\d\d)?)?"
    r"|(?:[^\x00-\x40\[-`{-\x7f]{3,12}\.?|\d{1,2}[月월]) {1,2}\d{1,2} (?:\d{4} )?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: \d{4})?"
    r"|\d{4} [A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"|\d{9,10}\.\d{1,9})"
)
"""Any stamp that `Clock.read` understands: ISO 8601, BSD with and without a year, seconds since the epoch."""

_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?:(Z)|([+-])(\d\d):?(\d\d)?)?", re.ASCII
)
_BSD: Final = re.compile(
    r"(?:(?P<before>\d{4}) )?(?P<month>[^\W\d]{3,12}|\d{1,2}[月월])\.? {1,2}(?P<day>\d{1,2}) (?:(?P<between>\d{4}) )?"
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?(?: (?P<behind>\d{4}))?"
)
_EPOCH: Final = re.compile(r"\d{9,10}\.\d{1,9}", re.ASCII)

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}
_NOVEMBER: Final = "marras"
"""The only foreign name that begins like another month's English one: Finnish."""
_SECONDS: Final = {form.format(second): float(second) for second in range(60) for form in (":{:02}", "{:02}.")}
"""As they end a BSD stamp, and as a fraction follows them."""

_LEAP: Final = 9
"""Among so many years following each other there is one with a 29th of February (1900 had none)."""
_DAY: Final = 86400.0
_HALF_YEAR: Final = 182 * _DAY
_DISORDER: Final = 7 * _DAY
"""Lines of several hosts are not quite in order, but not further out than this."""
_MTIME_STEP: Final = 2.0
"""File systems may keep modification times no finer. No more: a year's file ends seconds before the next New Year."""
_JITTER: Final = 60.0
"""The same within one hour: further back means that the clock was set back for winter."""


class Clock:
    """Turns stamps of one source into seconds since the epoch, in the order of its lines."""

    __slots__ = (
        "_bsd_minute", "_bsd_minute_time", "_foreign", "_iso_minute", "_iso_minute_time", "_iso_zone", "_last",
        "_reference", "_year", "_zone",
    )  # fmt: skip

    def __init__(
        self, *, zone: tzinfo, reference: float | None = None, year: int | None = None, after: float | None = None
    ) -> None:
        """`zone` is that of stamps without one; `reference` a time near the newest lines; `year` the first line's;
        `after` the time of the line before, where reading begins in the middle.
        """
        self._zone = zone
        self._reference = reference
        self._year = year
        self._last = after
        self._foreign: dict[str, int] = {}
        """Months in the words of other languages."""
        self._bsd_minute = ""
        self._bsd_minute_time = 0.0
        self._iso_minute = "\0"  # no stamp
        self._iso_zone = ""
        self._iso_minute_time = 0.0

    @property
    def latest(self) -> float | None:
        """The last line's time, or the one that is near; for lines that have none of their own (RFC 5424's `-`)."""
        return self._last if self._last is not None else self._reference

    def refer_to(self, reference: float) -> None:
        """Take another time near the newest lines: while a log is followed it goes on, however long no line came."""
        self._reference = reference

    def read(self, stamp: str) -> float | None:
        """Seconds since the epoch, UTC; None for what is no stamp."""
        # Most lines share their minute with the line before: then only seconds are read.
        time: float | None = None
        if stamp[:17] == self._iso_minute:
            second, micro = _SECONDS.get(stamp[17:20]), stamp[20:26]
            usual = len(micro) == 6 and micro.isascii() and micro.isdecimal()
            if second is not None and usual and stamp[26:] == self._iso_zone:
                time = self._iso_minute_time + second + int(micro) / 1e6
        elif stamp[:12] == self._bsd_minute and (second := _SECONDS.get(stamp[12:])) is not None:
            time = self._bsd_minute_time + second
        if time is None:
            time = self._whole(stamp)
        if time is not None:
            self._last = time
        return time

    def _whole(self, stamp: str) -> float | None:
        try:
            if match := _ISO.fullmatch(stamp):
                return self._iso(stamp, match)
            if match := _BSD.fullmatch(stamp):
                return self._bsd(stamp, match)
            return float(stamp) if _EPOCH.fullmatch(stamp) else None
        except (ValueError, OverflowError, OSError):
            return None  # the 31st of February, the 25th hour, the year 0

    def _iso(self, stamp: str, match: re.Match[str]) -> float:
        year, month, day, hour, minute, second, fraction, utc, sign, hours, minutes = match.groups()
        start = datetime(int(year), int(month), int(day), int(hour), int(minute))  # noqa: DTZ001  # its zone comes next
        if utc:
            time = start.replace(tzinfo=UTC).timestamp()
        elif sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
            time = start.replace(tzinfo=timezone(-offset if sign == "-" else offset)).timestamp()
        else:
            time = self._local(start)
        if stamp[10] == "T" and fraction and len(fraction) == 6:
            self._iso_minute = stamp[:17]
            self._iso_minute_time = time
            self._iso_zone = stamp[26:]
        return time + int(second) + _fraction(fraction)

    def _bsd(self, stamp: str, match: re.Match[str]) -> float | None:
        year = match["before"] or match["between"] or match["behind"]
        word = match["month"]
        month = _month(word) or self._foreign.get(word)
        clock = int(match["day"]), int(match["hour"]), int(match["minute"])
        second = int(match["second"])
        if second > 60:
            return None
        if year:
            time: float | None = self._local(datetime(int(year), month or 0, *clock))  # noqa: DTZ001  # local by intent
        elif month:
            time = self._in_some_year([month], clock, second)
        else:
            time = self._in_some_year(sorted({*_MONTHS.values()} - {*self._foreign.values()}), clock, second)
            if time is not None:
                self._foreign[word] = datetime.fromtimestamp(time, self._zone).month
        if time is None:
            return None
        if len(stamp) == 15:
            self._bsd_minute = stamp[:12]
            self._bsd_minute_time = time
        return time + second + _fraction(match["fraction"])

    def _in_some_year(self, months: Sequence[int], clock: tuple[int, int, int], second: int) -> float | None:
        """The minute in the year (and the month, where its name is foreign) that fits the lines before, or the time given."""
        if self._last is None and (self._year is not None or self._reference is None):
            first = 1970 if self._year is None else self._year
            return next(self._times(range(first, first + _LEAP), months, clock), None)
        if self._last is not None and len(months) == 1:
            year = datetime.fromtimestamp(self._last, UTC).year
            time = next(self._times([year], months, clock), None)
            if time is not None and -_JITTER <= time - self._last <= _DAY:
                return time  # nearly every line
        near = self._last if self._last is not None else self._reference
        assert near is not None
        around = datetime.fromtimestamp(near, UTC).year
        times = sorted(self._times(range(max(1, around - _LEAP), min(9998, around + _LEAP)), months, clock))
        if len(months) > 1:
            return min(times, key=lambda time: abs(time - near), default=None)
        if self._last is None:
            before = [time for time in times if time + second <= near + _MTIME_STEP]
            return before[-1] if before else next(iter(times), None)
        return self._forward(times, self._last)

    def _forward(self, times: list[float], last: float) -> float | None:
        """The next such time after the last line, unless that lies more than half a year on, beyond all we know of."""
        later = [time for time in times if time >= last - _DISORDER]
        if not later:
            return times[-1] if times else None
        known = max(last, self._reference or last) + _DAY
        if later[0] - last > _HALF_YEAR and later[0] > known:
            earlier = [time for time in times if time < last]
            return earlier[-1] if earlier else later[0]
        return later[0]

    def _times(self, years: Iterable[int], months: Sequence[int], clock: tuple[int, int, int]) -> Iterator[float]:
        for year in years:
            for month in months:
                try:
                    yield self._local(datetime(year, month, *clock))  # noqa: DTZ001  # local by intent
                except ValueError:
                    continue  # February has no such day that year

    def _local(self, wall: datetime) -> float:
        """A wall clock's time in our zone; of the two that an autumn hour has, the one that goes forward."""
        first = wall.replace(tzinfo=self._zone).timestamp()
        second = wall.replace(tzinfo=self._zone, fold=1).timestamp()
        if second > first and self._last is not None and first + 60 <= self._last - _JITTER:
            return second
        return first


def _month(word: str) -> int | None:
    """Of "Mar", "mars", "März" no more than the first; of "8月" the number that it says."""
    number = word[:-1]
    if number.isdecimal():
        return int(number)
    return 11 if word.casefold() == _NOVEMBER else _MONTHS.get(word[:3].title())


def _fraction(digits: str | None) -> float:
    return int(digits) / 10.0 ** len(digits) if digits else 0.0


_WITHIN: Final = {f":{number:02}": float(number) for number in range(60)}
"""Minutes and seconds, as they follow an ISO stamp's hour."""
_HOURS: Final = 1_000
_hours: Final[dict[str, float]] = {}
"""When the latest hours began: most lines share theirs with the line before."""


def wall_second(text: str) -> float | None:
    """What a clock on the wall shows ("2025-06-01T12:00:00"), in seconds as if it showed UTC; None for what is none."""
    minute, second = _WITHIN.get(text[13:16]), _WITHIN.get(text[16:])
    if minute is not None and second is not None and (began := _hours.get(text[:13])) is not None:
        return began + minute * 60.0 + second
    try:
        time = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    if minute is not None and second is not None:
        if len(_hours) >= _HOURS:
            _hours.clear()
        _hours[text[:13]] = time - minute * 60.0 - second
    return time
