"""The envelope of a line in every form that we know, and the time of stamps that do not say their year or zone."""

import json
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.clock import Clock
from parsers.log import NO_ENVELOPE, LogReader
from parsers.postfix.facts import DeliveryAttempt, QueueRemoved
from parsers.record import LogRecord
from parsers.syslog import Syslog, read_tag

BERLIN = ZoneInfo("Europe/Berlin")
SUMMER = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC).timestamp()
REFERENCE = datetime(2025, 7, 1, tzinfo=UTC).timestamp()
REMOVED = "3F2A81C0B7: removed"


def read(line: bytes, zone: tzinfo = UTC, *, syslog_names: tuple[str, ...] = ()) -> LogRecord | None:
    found = Syslog(zone=zone, reference=REFERENCE, syslog_names=syslog_names).read(
        line.decode("utf-8", "surrogateescape")
    )
    assert found is None or isinstance(found, LogRecord)
    return found


PLAIN = LogRecord(SUMMER, "mx1", "postfix", "", "qmgr", 77, REMOVED)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun 01 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun 1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:00.250 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(time=SUMMER + 0.25)),
        (b"Jun  1 2025 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:00 2025 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025 Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:00 <mail.info> mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:00 mx1 postfix/qmgr[77]: [ID 197553 mail.info] 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:00 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="")),
        (b"2025-06-01T12:00:00.000000+00:00 INFO    postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="")),
        (b"2025-06-01T12:00:00.000000+00:00 WARNING postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="")),
        (b"2025-06-01T12:00:00.000000+00:00 INFO postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="INFO")),
        ("6月 01 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed".encode(), PLAIN),
        ("6월  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed".encode(), PLAIN),
        (b"2025-06-01T12:00:00Z mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T14:00:00+02:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T14:00:00+0200 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T14:00:00+02 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T08:30:00.5-03:30 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(time=SUMMER + 0.5)),
        (b"2025-06-01T12:00:00,125Z mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(time=SUMMER + 0.125)),
        (b"1748779200.000000 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"<22>Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"<22>1 2025-06-01T12:00:00.000Z mx1 postfix/qmgr 77 - - 3F2A81C0B7: removed", PLAIN),
        (
            b'<22>1 2025-06-01T12:00:00Z mx1 postfix/qmgr 77 ID1 [a@1 x="]\\" y"][b z="1"] \xef\xbb\xbf3F2A81C0B7: removed',
            PLAIN,
        ),
        (b"<22>1 2025-06-01T12:00:00Z mx1 postfix/qmgr - - - 3F2A81C0B7: removed", PLAIN._replace(pid=0)),
        (b"<22>1 - mx1 postfix/qmgr 77 - - 3F2A81C0B7: removed", PLAIN._replace(time=REFERENCE)),
        (b"Jun  1 12:00:00 mx1 mail.info postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:00 mx1 <mail.info> postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T12:00:00Z stdout F postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="")),
        (b'{"log":"postfix/qmgr[77]: 3F2A81C0B7: removed\\n","time":"2025-06-01T12:00:00Z"}', PLAIN._replace(host="")),
        (b"Jun  1 12:00:01 box docker/mail[9]: Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:01 box 0123456789ab[9]: Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (
            b'{"MESSAGE":"3F2A81C0B7: removed","SYSLOG_IDENTIFIER":"postfix/qmgr","_PID":"77","_HOSTNAME":"mx1"'  # noqa: ISC004  # one line of JSON
            b',"__REALTIME_TIMESTAMP":"1748779200000000"}',
            PLAIN,
        ),
        (b"Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed\0", PLAIN),
        (b"mail-1  | Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"[pod/mail-0/postfix] Jun 01 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T12:00:00Z Jan 01 01:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"2025-06-01T12:00:00.000000000Z stdout F Jan 01 01:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (
            b'{"log":"Jan 01 01:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed\\n","time":"2025-06-01T12:00:00.000000000Z"}',
            PLAIN,
        ),
        (b"\0\0\0Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN),
        (b"Jun  1 12:00:00 2001:db8::1 postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="2001:db8::1")),
        (b"Jun  1 12:00:00 a/b postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="a/b")),
        (b"Jun  1 12:00:00 u@h.example postfix/qmgr[77]: 3F2A81C0B7: removed", PLAIN._replace(host="u@h.example")),
        (b"Jun  1 12:00:00 mx1 postfix/qmgr[77]: \xff\xfe", PLAIN._replace(text="\udcff\udcfe")),
        (b"Jun  1 12:00:00 mx1 postfix/qmgr: hm", PLAIN._replace(pid=0, text="hm")),
        (b"Jun  1 12:00:00 mx1 postfix/lane-01/smtp[1234567]: x",
         PLAIN._replace(service="lane-01", daemon="smtp", pid=1234567, text="x")),
        (b"Jun  1 12:00:00 mx1 dovecot: imap(a)[1]: x", LogRecord(SUMMER, "mx1", "", "", "dovecot", 0, "imap(a)[1]: x")),
        (b"Jun  1 12:00:00 mx1 logger: a postfix/qmgr[77]: 3F2A81C0B7: removed",
         LogRecord(SUMMER, "mx1", "", "", "logger", 0, "a postfix/qmgr[77]: 3F2A81C0B7: removed")),
    ],
)  # fmt: skip
def test_envelope(line: bytes, wanted: LogRecord) -> None:
    assert read(line) == wanted


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"Jun 31 12:00:00 mx1 postfix/qmgr[77]: x",
        b"Jun  1 25:00:00 mx1 postfix/qmgr[77]: x",
        b"Jun  1 12:00:99 mx1 postfix/qmgr[77]: x",
        b"2025-13-01T12:00:00Z mx1 postfix/qmgr[77]: x",
        b"0000-01-01T12:00:00Z mx1 postfix/qmgr[77]: x",
        b"Jun  1 12:00:00 mx1 no colon",
        b'{"log": 1}',
        b'{"log"',
    ],
)
def test_no_envelope(line: bytes) -> None:
    reader = LogReader(zone=UTC, reference=REFERENCE)
    assert read(line) is None
    assert reader.facts(line) == []
    assert reader.unknown == ({NO_ENVELOPE: 1} if line else {})


@pytest.mark.parametrize(
    ("tag", "wanted"),
    [
        ("postfix/smtp", ("postfix", "", "smtp")),
        ("postfix/submission/smtpd", ("postfix", "submission", "smtpd")),
        ("postfix-mx/content-filter/a/smtp", ("postfix-mx", "content-filter/a", "smtp")),
        ("postfix-10.20.30.40/smtp", ("postfix-10.20.30.40", "", "smtp")),
        ("/postfix-script", ("postfix", "", "postfix-script")),
        ("postfix", ("postfix", "", "postfix")),
        ("postfix-script", ("postfix", "", "postfix-script")),
        ("out/smtp", ("out", "", "smtp")),
        ("mail/out/lane/smtp", ("mail/out", "lane", "smtp")),
        ("mail/out", ("mail/out", "", "mail/out")),
        ("outer/smtp", ("", "", "outer/smtp")),
        ("postfixadmin", ("", "", "postfixadmin")),
        ("postfix-policyd-spf-python", ("", "", "postfix-policyd-spf-python")),
        ("opendkim", ("", "", "opendkim")),
    ],
)
def test_tag(tag: str, wanted: tuple[str, str, str]) -> None:
    assert read_tag(tag, ("out", "mail/out")) == wanted


def times(*stamps: str, zone: tzinfo = UTC, reference: str | None = None, year: int | None = None) -> list[str | None]:
    """Read stamps in this order; times in the clock's zone."""
    known = datetime.fromisoformat(reference).timestamp() if reference else None
    clock = Clock(zone=zone, reference=known, year=year)
    found = [clock.read(stamp) for stamp in stamps]
    return [None if time is None else datetime.fromtimestamp(time, zone).isoformat() for time in found]


@pytest.mark.parametrize(
    ("stamps", "reference", "year", "wanted"),
    [
        # The file was last written in March: December was last year.
        (("Dec 31 23:59:59", "Jan  1 00:00:00", "Mar  1 00:00:00"), "2025-03-01T00:00:00Z", None, (2024, 2025, 2025)),
        # Written on New Year's Eve: all of one year.
        (("Jan  1 00:00:05", "Jun  1 00:00:00", "Dec 31 23:59:59"), "2024-12-31T23:59:59Z", None, (2024, 2024, 2024)),
        # A late line of the old year, then on.
        (("Jan  1 00:00:01", "Dec 31 23:59:59", "Jan  1 00:00:02"), "2025-01-01T00:10:00Z", None, (2025, 2024, 2025)),
        # A second ahead of the file's time, which some file systems keep in steps of two.
        (("Jan  1 00:00:01",), "2025-01-01T00:00:00Z", None, (2025,)),
        # Three years in one file, the first one told.
        (("Mar  1 00:00:00", "Dec  1 00:00:00", "Feb  1 00:00:00", "Jan  1 00:00:00"), "2025-01-02T00:00:00Z", 2022,
         (2022, 2022, 2023, 2024)),
        # A quiet host: eleven months later is later, as long as the file is newer than that.
        (("Jan  2 00:00:00", "Dec 20 00:00:00"), "2025-12-21T00:00:00Z", None, (2025, 2025)),
        # Not newer: then it is a late line.
        (("Jan  2 00:00:00", "Dec 20 00:00:00"), "2025-01-03T00:00:00Z", None, (2025, 2024)),
        # A leap day.
        (("Feb 29 12:00:00", "Mar  1 00:00:00"), "2025-06-01T00:00:00Z", None, (2024, 2024)),
        (("Feb 28 12:00:00", "Feb 29 12:00:00"), "2024-06-01T00:00:00Z", None, (2024, 2024)),
        (("Feb 29 12:00:00",), "2024-06-01T00:00:00Z", 2023, (2024,)),
        # Nothing known.
        (("Jun  1 12:00:00",), None, None, (1970,)),
        (("Jun  1 12:00:00",), None, 2019, (2019,)),
    ],
)  # fmt: skip
def test_year(stamps: tuple[str, ...], reference: str | None, year: int | None, wanted: tuple[int, ...]) -> None:
    assert [int(str(time)[:4]) for time in times(*stamps, reference=reference, year=year)] == list(wanted)


def test_the_year_goes_on_as_long_as_lines_come() -> None:
    stamps = [f"{month} 15 12:00:00" for month in ("Jan", "Apr", "Jul", "Oct")] * 4
    years = [int(str(time)[:4]) for time in times(*stamps, reference="2021-01-15T12:00:00Z")]
    assert years == [2021] * 4 + [2022] * 4 + [2023] * 4 + [2024] * 4


def test_the_first_line_of_a_log_that_is_followed_may_come_late() -> None:
    started = datetime(2026, 11, 22, 3, 0, 0, tzinfo=UTC).timestamp()
    for seconds in (1, 10, 3_600):
        reader = LogReader(zone=UTC, reference=started)
        reader.refer_to(started + seconds)
        written = datetime.fromtimestamp(started + seconds, UTC)
        (fact,) = reader.facts(f"{written:%b %d %H:%M:%S} mx1 postfix/smtpd[1]: connect from a[192.0.2.1]".encode())
        assert fact.record.time == written.timestamp()


def test_a_month_in_another_language() -> None:
    """The month that is nearest to what is known, and that no other word means."""
    stamps = ("Απρ 28 12:00:00", "Μαϊ  2 12:00:00", "Ιουν  1 12:00:00")
    found = times(*stamps, reference="2025-05-03T00:00:00Z")
    assert [str(time)[:10] for time in found] == ["2025-04-28", "2025-05-02", "2025-06-01"]
    record = read("Ιουλ  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed".encode())
    assert record == PLAIN._replace(time=datetime(2025, 7, 1, 12, tzinfo=UTC).timestamp())


def test_a_foreign_month_that_begins_like_another() -> None:
    """Finnish November; and no month has the number 13."""
    assert [str(time)[:10] for time in times("marras  2 12:00:00", reference="2025-12-01T00:00:00Z")] == ["2025-11-02"]
    assert [str(time)[:10] for time in times("mars  2 12:00:00", reference="2025-12-01T00:00:00Z")] == ["2025-03-02"]
    assert read("13月  2 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed".encode()) is None


def test_the_hour_that_comes_twice() -> None:
    """Wall clocks show 02:00 to 03:00 twice; the log goes forward, a line may be some seconds late."""
    found = times(
        "Oct 26 02:30:00", "Oct 26 02:59:59", "Oct 26 02:00:00", "Oct 26 02:59:58", "Oct 26 02:00:01",
        "Oct 26 02:30:00", "Oct 26 03:00:00",
        zone=BERLIN, reference="2025-10-27T00:00:00Z",
    )  # fmt: skip
    assert [str(time)[11:] for time in found] == [
        "02:30:00+02:00", "02:59:59+02:00", "02:00:00+01:00", "02:59:58+02:00", "02:00:01+01:00",
        "02:30:00+01:00", "03:00:00+01:00",
    ]  # fmt: skip


def test_the_hour_that_is_skipped() -> None:
    found = times(
        "Mar 30 01:59:59", "Mar 30 02:30:00", "Mar 30 03:00:00", zone=BERLIN, reference="2025-04-01T00:00:00Z"
    )
    assert found[0] == "2025-03-30T01:59:59+01:00"
    assert found[1] == "2025-03-30T03:30:00+02:00"
    assert found[2] == "2025-03-30T03:00:00+02:00"


def test_a_leap_second_counts() -> None:
    assert times("Dec 31 23:59:60", reference="2017-01-01T00:00:00Z") == ["2017-01-01T00:00:00+00:00"]
    assert times("2016-12-31T23:59:60Z") == ["2017-01-01T00:00:00+00:00"]


def test_a_stamp_without_zone_is_local() -> None:
    zone = timezone(timedelta(hours=-5))
    assert times("2025-06-01T12:00:00", zone=zone) == ["2025-06-01T12:00:00-05:00"]
    assert times("Jun  1 12:00:00", zone=zone, reference="2025-07-01T00:00:00Z") == ["2025-06-01T12:00:00-05:00"]


def test_micro_seconds_in_a_known_minute() -> None:
    """The short way for a minute that is known reads as the long way does, also when the zone changes."""
    stamps = (
        "2025-06-01T12:00:01.000001+02:00",
        "2025-06-01T12:00:59.999999+02:00",
        "2025-06-01T12:00:59.999999+01:00",
        "2025-06-01T12:00:59.99+01:00",
        "2025-06-01T12:00:58+01:00",
        "2025-06-01T12:00:57+01:00",
        "2025-06-01T12:00:56",
        "2025-06-01T12:00:55.5",
        "2025-06-01T12:00:54Z",
    )
    clock = Clock(zone=UTC)
    for stamp in stamps:
        assert clock.read(stamp) == Clock(zone=UTC).read(stamp), stamp
    assert clock.read("2025-06-01T12:00:5x") is None
    assert clock.read("2025-06-01T12:00:55.12345x+02:00") is None


STAMPS = (
    "Jun  1 12:00:00", "Jun  1 12:00:00", "Jun  1 12:00:01", "Jun 01 12:00:01",
    "2025-06-01T14:00:00.000001+02:00", "2025-06-01T14:00:00.999999+02:00", "2025-06-01T14:00:00.333333+01:00",
    "2025-06-01T14:00:00.12ab56+02:00", "2025-06-01T14:00:00.123456Z", "2025-06-01T14:00:00.123456",
    "2025-06-01T14:00:01.123+02:00", "2025-06-01T14:00:01.124+02:00", "2025-06-01T14:00:01.124+02:00",
    "2025-06-01T14:00:02+02:00", "2025-06-01T14:00:02+02:00", "2025-06-01T14:00:61+02:00", "2025-06-31T14:00:02+02:00",
    "2025-06-01 14:00:02+02:00", "2025-06-01T14:00:02,5+02:00", "2025-06-01T14:00:02.123456789Z",
)  # fmt: skip


@given(st.lists(st.sampled_from(STAMPS), max_size=12))
def test_the_short_way_to_a_stamp_is_the_long_way(stamps: list[str]) -> None:
    """Seconds, zones and fractions are remembered from line to line; each line reads as if it were alone."""
    lines = [f"{stamp} mx1 postfix/qmgr[77]: {REMOVED}\n".encode() for stamp in stamps]
    alone = [read(one.rstrip(b"\n")) for one in lines]
    assert [fact.record for fact in reader().block_facts(b"".join(lines))] == [one for one in alone if one]


def reader() -> LogReader:
    return LogReader(zone=UTC, reference=REFERENCE)


def line(text: str, *, second: int = 0, host: str = "mx1") -> bytes:
    return f"Jun  1 12:00:{second:02} {host} postfix/qmgr[77]: {text}\n".encode()


def test_line_ends() -> None:
    one = reader()
    for end in (b"", b"\n", b"\r\n"):
        (fact,) = one.facts(line(REMOVED).rstrip(b"\n") + end)
        assert fact == QueueRemoved(PLAIN, "3F2A81C0B7", "")
    assert one.lines == 3


def test_a_block_is_its_lines() -> None:
    block = b"".join(
        (line(REMOVED), b"\n", line("what?"), line(REMOVED, second=2).replace(b"\n", b"\r\n"), b"\xff\n", line(REMOVED))
    )
    one, all_at_once = reader(), reader()
    single = [fact for part in block.splitlines(keepends=True) for fact in one.facts(part)]
    assert all_at_once.block_facts(block) == single
    assert len(single) == 3
    assert one.lines == all_at_once.lines == 6
    assert one.unknown == all_at_once.unknown == {"qmgr": 1, NO_ENVELOPE: 1}
    assert one.known == all_at_once.known == {"QueueRemoved": 3}
    assert one.samples == {"qmgr": "what?", NO_ENVELOPE: "\udcff"}


def test_only_the_facts_that_are_wanted() -> None:
    every = (
        line(REMOVED),
        line("3F2A81C0B7: from=<a>, size=1, nrcpt=1 (queue active)"),
        line("fatal: x"),
        line("what?"),
    )
    one = LogReader(zone=UTC, reference=REFERENCE, only=[QueueRemoved])
    assert [type(fact) for part in every * 2 for fact in one.facts(part)] == [QueueRemoved] * 2
    assert one.known == {"QueueRemoved": 2}
    assert one.unknown == {"qmgr": 2}


def test_deliveries_alone() -> None:
    delivery = "3F2A81C0B7: to=<a@b>, relay=none, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (x)"
    block = line(REMOVED) + line(delivery) + b"\n" + line("what?") + line(f"message repeated 2 times: [ {delivery}]")
    for end in (b"", line(REMOVED), line(delivery), line(delivery).rstrip(b"\n")):
        one, every = LogReader(zone=UTC, reference=REFERENCE, only=[DeliveryAttempt]), reader()
        wanted = [fact for fact in every.block_facts(block + end) if isinstance(fact, DeliveryAttempt)]
        assert one.block_facts(block + end) == wanted
        assert len(wanted) == 3 + (b"to=" in end)
        assert one.lines == every.lines
    assert one.block_facts(b"") == []


def test_repeated_text() -> None:
    """rsyslog: the text stands for as many more."""
    one = reader()
    facts = one.facts(line(f"message repeated 3 times: [ {REMOVED}]"))
    assert [fact.queue_id for fact in facts] == ["3F2A81C0B7"] * 3
    assert one.known == {"QueueRemoved": 3}
    assert one.facts(line("message repeated 3 times: [ what?]")) == []
    assert one.unknown == {"qmgr": 1}


def test_repeated_line() -> None:
    """Old syslogd names neither tag nor text: the last line of that host, if it was known."""
    one = reader()
    again = b"Jun  1 12:00:09 mx1 last message repeated 2 times\n"
    assert one.facts(again) == []
    one.facts(line(REMOVED))
    facts = one.facts(again)
    assert [(fact.queue_id, fact.record.time) for fact in facts] == [("3F2A81C0B7", SUMMER + 9)] * 2
    assert one.facts(again.replace(b"mx1", b"mx2")) == []
    one.facts(line(REMOVED))
    one.facts(line("what?"))
    assert one.facts(again) == []
    assert len(one.block_facts(line(REMOVED) + again)) == 3


def test_absurd_repeats_are_damage() -> None:
    assert len(reader().facts(line(f"message repeated 999999999 times: [ {REMOVED}]"))) == 10_000


def test_many_programs_and_processes_are_not_remembered_for_ever() -> None:
    one = reader()
    for number in range(1200):
        one.facts(f"Jun  1 12:00:00 mx1 tool{number}[{number}]: x".encode())
    assert len(one.unknown) == 1001
    assert one.unknown.total() == 1200
    for pid in range(20_100):
        one.facts(f"Jun  1 12:00:00 h{pid} postfix/qmgr[{pid}]: {REMOVED}".encode())
    assert one.known == {"QueueRemoved": 20_100}


def journal(**fields: object) -> dict[str, object]:
    return {
        "__REALTIME_TIMESTAMP": "1748779200250000",
        "_HOSTNAME": "mx1",
        "SYSLOG_IDENTIFIER": "postfix/qmgr",
        "_PID": "77",
        "MESSAGE": REMOVED,
        **fields,
    }


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        (journal(), PLAIN._replace(time=SUMMER + 0.25)),
        (journal(SYSLOG_PID="78"), PLAIN._replace(time=SUMMER + 0.25, pid=78)),
        (journal(_SOURCE_REALTIME_TIMESTAMP="1748779200000000"), PLAIN),
        (journal(MESSAGE=[*REMOVED.encode(), 255]), PLAIN._replace(time=SUMMER + 0.25, text=f"{REMOVED}\udcff")),
        (journal(_PID=None, _HOSTNAME=None), PLAIN._replace(time=SUMMER + 0.25, pid=0, host="")),
        (journal(MESSAGE=None), PLAIN._replace(time=SUMMER + 0.25, text="")),
        (journal(MESSAGE=f"{REMOVED}\n"), PLAIN._replace(time=SUMMER + 0.25)),
        (journal(SYSLOG_IDENTIFIER=None), None),
        (journal(__REALTIME_TIMESTAMP="x"), None),
        ({}, None),
    ],
)
def test_journal(entry: dict[str, object], wanted: LogRecord | None) -> None:
    entry = json.loads(json.dumps(entry))
    assert Syslog(zone=UTC).read_journal(entry) == wanted
    facts = reader().journal_facts(entry)
    assert [fact.record for fact in facts] == ([wanted] if wanted and wanted.text == REMOVED else [])


def test_journal_counts() -> None:
    one = reader()
    one.journal_facts(journal())
    one.journal_facts(journal(MESSAGE="what?"))
    one.journal_facts({})
    assert len(one.journal_facts(journal(MESSAGE=f"message repeated 2 times: [ {REMOVED}]"))) == 2
    assert (one.lines, one.known, one.unknown) == (4, {"QueueRemoved": 3}, {"qmgr": 1, NO_ENVELOPE: 1})


def test_instances_by_configuration() -> None:
    tagged = b"Jun  1 12:00:00 mx1 out/lane/qmgr[77]: 3F2A81C0B7: removed"
    assert reader().facts(tagged) == []
    one = LogReader(zone=UTC, reference=REFERENCE, syslog_names=("out",))
    (fact,) = one.facts(tagged)
    assert fact.record == PLAIN._replace(instance="out", service="lane")


EXPORTED = (
    b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1748779200000000\n_HOSTNAME=mx1\nSYSLOG_IDENTIFIER=postfix/qmgr\n_PID=77\n"
    b"MESSAGE=3F2A81C0B7: removed\n\n"
)
BINARY = (
    b"__CURSOR=s=1;i=3\n__REALTIME_TIMESTAMP=1748779200000000\n_HOSTNAME=mx1\nSYSLOG_IDENTIFIER=postfix/cleanup\n_PID=78\n"
    b"MESSAGE\n\x17\0\0\0\0\0\0\x003F2A81C0B7: message-id=\xff\n_UID=0\n\n"
)


def test_journal_export() -> None:
    reader = LogReader(zone=UTC, reference=REFERENCE)
    facts = reader.block_facts(EXPORTED + BINARY + EXPORTED)
    assert [type(fact).__name__ for fact in facts] == ["QueueRemoved", "MessageIdentified", "QueueRemoved"]
    assert facts[0].record == PLAIN
    assert facts[1][1:] == ("3F2A81C0B7", "\udcff", False)
    assert (reader.lines, reader.unknown.total()) == (3, 0)


def test_deliveries_alone_of_exported_entries() -> None:
    """An entry's lines stay together, wherever blocks are cut and whatever line stands between entries."""
    delivery = b"3F2A81C0B7: to=<a@b>, relay=none, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (x)"
    entry = EXPORTED.replace(b"3F2A81C0B7: removed", delivery)
    usual = b"Jun  1 12:00:00 mx1 postfix/qmgr[77]: " + delivery + b"\n"
    log = usual + entry + EXPORTED + usual + BINARY + usual + entry
    every = LogReader(zone=UTC, reference=REFERENCE)
    wanted = [fact for fact in every.block_facts(log) if isinstance(fact, DeliveryAttempt)]
    assert len(wanted) == 5
    for cut in [place + 1 for place, byte in enumerate(log) if byte == ord("\n")]:
        one = LogReader(zone=UTC, reference=REFERENCE, only=[DeliveryAttempt])
        assert [*one.block_facts(log[:cut]), *one.block_facts(log[cut:])] == wanted
        assert one.lines == every.lines == 7


def test_an_exported_entry_without_an_end_takes_no_other_line_with_it() -> None:
    reader = LogReader(zone=UTC, reference=REFERENCE)
    line = b"Jun  1 12:00:00 mx1 postfix/qmgr[77]: 3F2A81C0B7: removed\n"
    assert len(reader.block_facts(b"__CURSOR=x\n" + line + line + b"\n" + line)) == 3
    assert reader.unknown == {NO_ENVELOPE: 1}
    assert reader.lines == 5


@pytest.mark.parametrize(
    "stamp",
    [
        "2025-06-01T12:00:01",  # rsyslog's, without a zone: of the log's zone, also of a process that wrote BSD stamps before
        "2025-06-01T12:00:01.123",
        "2025-06-01 12:00:01",
        "2025-06-01T12:00:01:123+02:00",
        "2025-06-01T12:00:01,123+02:00",
        "2025-06-01T12:00:01.12x+02:00",
        "2025-06-01T12:00:01.123+02:00",
        "2025-06-01T12:00:01.123Z",
        "2025-06-01T12:00:01+02:00",
    ],
)
@pytest.mark.parametrize(
    "before", ["Jun  1 12:00:00", "2025-06-01T12:00:00.456+02:00", "2025-06-01T12:00:00+02:00", "2025-06-01T12:00:01Z"]
)
def test_a_stamp_of_another_form_is_read_as_by_itself(before: str, stamp: str) -> None:
    rest = " mx1 postfix/qmgr[7]: 3F2A81C0B7: removed"

    def reader() -> LogReader:
        return LogReader(zone=ZoneInfo("Europe/Berlin"), reference=1_748_779_201.0)

    alone, after = reader(), reader()
    for _ in range(2):
        after.facts(f"{before}{rest}".encode())
    wanted = [fact.record.time for fact in alone.facts(f"{stamp}{rest}".encode())]
    assert [fact.record.time for fact in after.facts(f"{stamp}{rest}".encode())] == wanted
