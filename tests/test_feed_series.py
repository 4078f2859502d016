"""What the feeds told, as Prometheus sees it: names, labels, bounds, and how long a value is shown."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from parsers.observation import Observation, Outcome
from sidecar import outside
from sidecar.feed_series import SHOWN, STALE, STALE_DAY, FeedSeries
from sidecar.metrics import OutsideFigures
from sidecar.report_store import MailRow

NOW = 1_800_000_000.0
DAY = 86_400.0
Series = dict[tuple[str, ...], float]


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def ok(feed: str, object_: str, measure: str, value: float, at: float = 0.0) -> Observation:
    return Observation(feed, object_, measure, Outcome.OK, value, "", at)


def shown(series: FeedSeries) -> dict[str, Series]:
    """Sample name -> values of its labels by their names -> value."""
    registry = CollectorRegistry()
    registry.register(series)
    read: dict[str, Series] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            read.setdefault(sample.name, {})[labels] = sample.value
    return read


TOLD = [
    ok("dnsbl-15min", "192.0.2.1", "listed.spamhaus_zen", 1.0),
    ok("dnsbl-15min", "a.example", "listed.spamhaus_dbl", 0.0),
    ok("dnsbl-15min", "spamhaus_zen", "zone-healthy", 1.0),
    ok("authentication", "a.example", "requirement.SPF", 0.0),
    ok("senderscore", "192.0.2.1", "score", 93.0),
    ok("google-postmaster", "a.example", "spam", 0.004, NOW - 3 * DAY),
    ok("google-postmaster", "a.example", "spam", 0.002, NOW - 2 * DAY),
    ok("google-postmaster", "a.example", "auth-success.dkim", 0.99, NOW - 2 * DAY),
    ok("google-postmaster", "a.example", "tls.inbound", 1.0, NOW - 2 * DAY),
    ok("google-postmaster", "a.example", "delivery-error.reject.ip_in_rbls", 0.01, NOW - 2 * DAY),
    ok("google-postmaster", "a.example", "compliance.DKIM", 1.0),
    ok("google-postmaster", "a.example", "fbl-spam.campaign-17", 0.5),
    ok("snds", "192.0.2.1", "filter-result", 1.0, NOW - DAY),
    ok("snds", "192.0.2.1", "complaints", 0.002, NOW - DAY),
    ok("snds", "192.0.2.1", "trap-hits", 3.0, NOW - DAY),
    ok("snds", "192.0.2.1", "blocked", 0.0),
    Observation("snds", "192.0.2.2", "blocked", Outcome.UNKNOWN, text="TIMEOUT"),
]


def told(clock: Clock | None = None, *more: Observation) -> FeedSeries:
    series = FeedSeries(clock=clock or Clock())
    series.told([*TOLD, *more], told_at=NOW)
    return series


def test_series() -> None:
    found = shown(told())
    left_out = found.pop("sidecar_feed_series_left_out")
    assert set(left_out.values()) == {0.0}
    assert found == {
        "sidecar_blocklist_listed": {("spamhaus_zen", "192.0.2.1"): 1.0, ("spamhaus_dbl", "a.example"): 0.0},
        "sidecar_blocklist_zone_healthy": {("spamhaus_zen",): 1.0},
        "sidecar_requirement_ok": {("a.example", "SPF"): 0.0},
        "sidecar_senderscore": {("192.0.2.1",): 93.0},
        "sidecar_gmail_spam_ratio": {("a.example",): 0.002},
        "sidecar_gmail_auth_success_ratio": {("dkim", "a.example"): 0.99},
        "sidecar_gmail_tls_ratio": {("inbound", "a.example"): 1.0},
        "sidecar_gmail_delivery_error_ratio": {("a.example", "ip_in_rbls", "reject"): 0.01},
        "sidecar_gmail_compliance_ok": {("a.example", "DKIM"): 1.0},
        "sidecar_snds_filter_result": {
            ("192.0.2.1", "green"): 0.0, ("192.0.2.1", "yellow"): 1.0, ("192.0.2.1", "red"): 0.0,
        },
        "sidecar_snds_complaint_ratio": {("192.0.2.1",): 0.002},
        "sidecar_snds_trap_hits": {("192.0.2.1",): 3.0},
        "sidecar_snds_blocked": {("192.0.2.1",): 0.0},
        "sidecar_feed_data_timestamp_seconds": {
            ("dnsbl-15min",): NOW, ("authentication",): NOW, ("senderscore",): NOW,
            ("google-postmaster",): NOW - 2 * DAY, ("snds",): NOW - DAY,
        },
    }  # fmt: skip


def test_a_late_day_does_not_replace_a_newer_one() -> None:
    found = shown(told(None, ok("google-postmaster", "a.example", "spam", 0.9, NOW - 5 * DAY)))
    assert found["sidecar_gmail_spam_ratio"] == {("a.example",): 0.002}


def test_what_is_old_is_not_shown_for_ever() -> None:
    clock = Clock()
    series = told(clock)
    clock.now = NOW + STALE + 1
    series.told([ok("snds", "192.0.2.1", "trap-hits", 3.0, NOW - DAY)], told_at=clock.now)
    assert set(shown(series)) == {
        "sidecar_snds_trap_hits", "sidecar_feed_series_left_out", "sidecar_feed_data_timestamp_seconds"
    }  # fmt: skip
    clock.now = NOW - DAY + STALE_DAY + 1
    series.told([ok("snds", "192.0.2.1", "trap-hits", 3.0, NOW - DAY)], told_at=clock.now)
    assert "sidecar_snds_trap_hits" not in shown(series)


def test_of_too_many_the_worst_are_shown() -> None:
    series = FeedSeries(clock=Clock(), most=3)
    listed = [ok("dnsbl-1h", f"192.0.2.{number}", "listed.x", float(number in {7, 9})) for number in range(50)]
    series.told([*listed, ok("senderscore", "192.0.2.1", "score", 20.0)], told_at=NOW)
    found = shown(series)
    assert found["sidecar_blocklist_listed"] == {
        ("x", "192.0.2.7"): 1.0,
        ("x", "192.0.2.9"): 1.0,
        ("x", "192.0.2.0"): 0.0,
    }
    assert found["sidecar_feed_series_left_out"] == {
        ("sidecar_blocklist_listed",): 47.0, ("sidecar_senderscore",): 0.0,
    }  # fmt: skip


def test_a_strangers_name_is_still_utf_8() -> None:
    assert shown(told(None, ok("dnsbl-1h", "a\udc80", "listed.x", 1.0)))


def test_names_are_good_and_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "feeds.md").read_text()
    for each in SHOWN:
        assert re.fullmatch(r"sidecar_[a-z_]+", each.name)
        assert f"`{each.name}`" in text


def test_complaints_are_counted_by_who_proved_to_be_the_reporter() -> None:
    own = OutsideFigures()
    for kind, trusted in (("complaint", True), ("complaint", False), ("dmarc", True)):
        outside._taken(own, MailRow("d", NOW, "pipe", kind, "yahoo.com", trusted, ""))
    value = own.registry.get_sample_value
    assert value("sidecar_complaints_total", {"source": "yahoo.com"}) == 1
    assert value("sidecar_report_mails_total", {"kind": "complaint", "trusted": "no"}) == 1
