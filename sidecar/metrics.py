"""What Prometheus is shown: core's figures as core reports them, and those of the outside process.

Knows names, bounds and the exposition format; what is counted, and when, is for the parts that count.
"""

import platform
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sidecar.feed_series import FeedSeries

# A second series beside each counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEYS_MAX = 200
"""Sub-queue keys that get series of their own: a fleet's Prometheus must survive our busiest day."""
OTHER = "other"
PACKAGE = "postfix-sidecar"

_NAME = re.compile(r"sidecar_[a-z0-9_]+")
_LABEL = re.compile(r"(?!le\b)[a-z][a-z0-9_]*")

Labels = tuple[tuple[str, str], ...]


class FigureType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"


class Sample(NamedTuple):
    labels: Labels
    """(name, value) by name."""
    value: float


class Figure(NamedTuple):
    name: str
    help: str
    type: FigureType
    samples: tuple[Sample, ...]


class Histogram(NamedTuple):
    name: str
    help: str
    buckets: tuple[tuple[float, float], ...]
    """(upper bound, observations at or below it), ascending, without the infinite one, which is `observations`."""
    sum: float
    observations: float
    labels: Labels = ()


class Figures(NamedTuple):
    figures: tuple[Figure, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    malformed: int = 0
    """Entries left out because their form was wrong: a bug, but no reason to show nothing."""


def read_figures(answer: Mapping[str, Any]) -> Figures:
    """Read core's answer to {"command": "metrics"}; never raises for what an entry holds."""
    figures, histograms, malformed = [], [], 0
    for entry in answer.get("figures", ()):
        try:
            figures.append(_figure(entry))
        except (AttributeError, KeyError, TypeError, ValueError):
            malformed += 1
    for entry in answer.get("histograms", ()):
        try:
            histograms.append(_histogram(entry))
        except (AttributeError, KeyError, TypeError, ValueError):
            malformed += 1
    return Figures(tuple(figures), tuple(histograms), malformed)


def _figure(entry: Mapping[str, Any]) -> Figure:
    samples = tuple(
        Sample(_labels(sample["labels"]), float(sample["value"]))
        for sample in entry["samples"]
        if sample["value"] is not None  # what JSON cannot say: infinite, or not a number
    )
    return Figure(_name(entry), str(entry["help"]), FigureType(entry["type"]), samples)


def _histogram(entry: Mapping[str, Any]) -> Histogram:
    bounded = [(bound, count) for bound, count in entry["buckets"] if bound not in (None, "+Inf")]
    buckets = tuple((float(bound), float(count)) for bound, count in bounded)
    counts = [*(count for _, count in buckets), float(entry["count"])]
    if counts != sorted(counts) or list(buckets) != sorted(buckets):
        raise ValueError(f"{entry['name']}: buckets are not cumulative")
    labels = _labels(entry.get("labels", {}))
    return Histogram(_name(entry), str(entry["help"]), buckets, float(entry["sum"]), float(entry["count"]), labels)


def _name(entry: Mapping[str, Any]) -> str:
    if not _NAME.fullmatch(entry["name"]):
        raise ValueError(f"{entry['name']!r} is no name of a metric")
    return str(entry["name"])


def _labels(labels: Mapping[str, Any]) -> Labels:
    if not all(_LABEL.fullmatch(name) for name in labels):
        raise ValueError(f"{list(labels)!r} are no names of labels")
    # What a crafted address left undecodable must still be UTF-8 for Prometheus.
    return tuple(sorted((name, str(labels[name]).encode(errors="backslashreplace").decode()) for name in labels))


class _Shown:
    """What `Busiest` remembers of one figure from scrape to scrape."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.last: dict[Labels, float] = {}
        self.other: dict[Labels, float] = {}


class Busiest:
    """Bounds the values of the label `key`: `limit` of them a figure, the rest summed as key="other".

    A key that has series of its own keeps them until core no longer reports it, and the "other" of a counter
    grows by what the rest grew and never falls: else each change of place would look like a restart to rate().
    What core itself has summed up as key="other" is of the rest.
    """

    def __init__(self, limit: int = KEYS_MAX) -> None:
        self._limit = limit
        self._shown: defaultdict[str, _Shown] = defaultdict(_Shown)

    def bound(self, figure: Figure) -> Figure:
        by_key: dict[str, float] = defaultdict(float)
        for sample in figure.samples:
            by_key[_key(sample.labels)] += sample.value
        keyless = by_key.pop("", None) is not None
        if not by_key:
            return figure
        shown = self._shown[figure.name]
        shown.keys &= by_key.keys()
        newcomers = sorted(by_key.keys() - shown.keys - {OTHER}, key=lambda key: (-by_key[key], key))
        shown.keys.update(newcomers[: self._limit - len(shown.keys)])
        own = shown.keys | {""} if keyless else shown.keys
        rest = [sample for sample in figure.samples if _key(sample.labels) not in own]
        other = _grown(shown, rest) if figure.type is FigureType.COUNTER else _summed(rest)
        kept = (sample for sample in figure.samples if _key(sample.labels) in own)
        return figure._replace(samples=(*kept, *(Sample(labels, other[labels]) for labels in sorted(other))))


def _key(labels: Labels) -> str:
    return next((value for name, value in labels if name == "key"), "")


def _as_other(labels: Labels) -> Labels:
    return tuple((name, OTHER if name == "key" else value) for name, value in labels)


def _summed(rest: Iterable[Sample]) -> dict[Labels, float]:
    other: dict[Labels, float] = {}
    for sample in rest:
        _add(other, _as_other(sample.labels), sample.value)
    return other


def _add(other: dict[Labels, float], labels: Labels, value: float) -> None:
    other[labels] = other.get(labels, 0.0) + value


def _grown(shown: _Shown, rest: Iterable[Sample]) -> dict[Labels, float]:
    """Add what each counter grew since the last scrape; one that fell began anew."""
    last, shown.last = shown.last, {sample.labels: sample.value for sample in rest}
    for labels, value in shown.last.items():
        before = last.get(labels, 0.0)
        _add(shown.other, _as_other(labels), value - before if value >= before else value)
    return shown.other


class _CoreCollector:
    """Hands `figures` to prometheus_client."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for figure in self._figures.figures:
            yield _family(figure)
        by_name: defaultdict[str, list[Histogram]] = defaultdict(list)
        for histogram in self._figures.histograms:
            by_name[histogram.name].append(histogram)
        yield from map(_histogram_family, by_name.values())


def _histogram_family(histograms: list[Histogram]) -> Metric:
    names = sorted({name for histogram in histograms for name, _ in histogram.labels})
    family = HistogramMetricFamily(histograms[0].name, histograms[0].help, labels=names)
    for histogram in histograms:
        labels = dict(histogram.labels)
        buckets = [(repr(bound), count) for bound, count in histogram.buckets]
        buckets.append(("+Inf", histogram.observations))
        family.add_metric([labels.get(name, "") for name in names], buckets, histogram.sum)
    return family


def _family(figure: Figure) -> Metric:
    """A family with as many labels as any sample has; a label that a sample lacks is empty, which is the same."""
    names = sorted({name for sample in figure.samples for name, _ in sample.labels})
    kind = CounterMetricFamily if figure.type is FigureType.COUNTER else GaugeMetricFamily
    family = kind(figure.name, figure.help, labels=names)
    for sample in figure.samples:
        labels = dict(sample.labels)
        family.add_metric([labels.get(name, "") for name in names], sample.value)
    return family


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:  # run from its source, without being installed
        return "unknown"


class OutsideFigures:
    """The outside process's own figures, in a registry of their own."""

    def __init__(self, *, fleet: bool = False) -> None:
        """`fleet`: whether there are other hosts; else what is about them is not shown."""
        self.registry = CollectorRegistry()
        self.build = Gauge(
            "sidecar_build_info",
            "1; which version this is, on which Python",
            ["version", "python"],
            registry=self.registry,
        )
        self.build.labels(_version(), platform.python_version()).set(1)
        self.core_up = Gauge("sidecar_core_up", "1 when core answered last time it was asked", registry=self.registry)
        self.mx_lookups = Counter(
            "sidecar_outside_mx_lookups",
            "MX look-ups by how they ended: hosts, none (takes no mail), error",
            ["outcome"],
            registry=self.registry,
        )
        self.web_requests = Counter(
            "sidecar_outside_web_requests",
            "Requests to the page by path and status",
            ["path", "status"],
            registry=self.registry,
        )
        self.polls = Counter("sidecar_feed_polls", "Polls of each feed", ["feed"], registry=self.registry)
        self.poll_errors = Counter(
            "sidecar_feed_poll_errors",
            "Polls that told nothing, by feed and reason",
            ["feed", "reason"],
            registry=self.registry,
        )
        self.feed_told = Gauge(
            "sidecar_feed_last_success_timestamp_seconds",
            "When each feed last told something",
            ["feed"],
            registry=self.registry,
        )
        self.feed_interval = Gauge(
            "sidecar_feed_interval_seconds", "How often each feed is asked", ["feed"], registry=self.registry
        )
        self.seed_placement = Gauge(
            "sidecar_seed_placement_ratio",
            "Of the last seed test: what landed in each place, of all that says something",
            ["provider", "transport", "place"],
            registry=self.registry,
        )
        self.seed_tested = Gauge(
            "sidecar_seed_last_test_timestamp_seconds",
            "When the last seed test of a provider ended that says something",
            ["provider", "transport"],
            registry=self.registry,
        )
        self.feed_series = FeedSeries()
        self.registry.register(self.feed_series)
        self.complaints = Counter(
            "sidecar_complaints",
            "Complaint mails by the reporter that proved who it is",
            ["source"],
            registry=self.registry,
        )
        self.dmarc = Gauge(
            "sidecar_dmarc_reported_messages",
            "Messages of the reports of the last three days, by domain and whether DMARC passed",
            ["domain", "aligned"],
            registry=self.registry,
        )
        self.dmarc_passes = Gauge(
            "sidecar_dmarc_reported_passes",
            "Of sidecar_dmarc_reported_messages: those that an aligned DKIM signature, or an aligned SPF, passed",
            ["domain", "method"],
            registry=self.registry,
        )
        self.tls_sessions = Gauge(
            "sidecar_tls_reported_sessions",
            "TLS sessions of the reports of the last three days, by domain of the MX hosts and how they ended",
            ["domain", "result"],
            registry=self.registry,
        )
        self.report_mails = Counter(
            "sidecar_report_mails",
            "Report mails taken in, by kind and whether a known reporter sent them",
            ["kind", "trusted"],
            registry=self.registry,
        )
        self.alerts_firing = Gauge(
            "sidecar_alerts_firing", "Alerts that fire now, by severity", ["severity"], registry=self.registry
        )
        self.incidents_open = Gauge(
            "sidecar_incidents_open", "Incidents that are not over, by severity", ["severity"], registry=self.registry
        )
        self.pages_alone = Gauge(
            "sidecar_fleet_pages_alone",
            "1 while this host tells people by itself what others of the fleet see too: it does not reach their store",
            registry=self.registry if fleet else None,
        )
        self.pages_unreadable = Gauge(
            "sidecar_fleet_pages_unreadable",
            "Texts of the fleet's pages that could not be read, since the start",
            registry=self.registry if fleet else None,
        )
        self.incident_detect = Gauge(
            "sidecar_incident_detect_seconds",
            "From the first sign of an incident until it was noticed; of those of the last two days",
            ["point"],
            registry=self.registry,
        )
        self.incident_recover = Gauge(
            "sidecar_incident_recover_seconds",
            "From the first sign of an incident until its last alert was over; of those of the last two days",
            ["point"],
            registry=self.registry,
        )
        self.looked = Gauge(
            "sidecar_outside_alerts_last_look_timestamp_seconds",
            "When alerts were last looked at",
            registry=self.registry,
        )
        self.notes = Counter(
            "sidecar_channel_messages",
            "Messages by channel and what became of them: sent, later, broken, unsure",
            ["channel", "result"],
            registry=self.registry,
        )
        self.channel_broken = Gauge(
            "sidecar_channel_broken", "1 while a channel takes no messages", ["channel"], registry=self.registry
        )
        self.malformed = Gauge(
            "sidecar_outside_malformed_figures",
            "Figures of core left out of this answer because their form was wrong",
            registry=self.registry,
        )
        self.store_bytes = Gauge(
            "sidecar_store_size_bytes",
            "Size of each database with its write-ahead log",
            ["database"],
            registry=self.registry,
        )
        self.history_sent = Counter(
            "sidecar_history_sent_rows", "Rows of core sent to ClickHouse, each once", registry=self.registry
        )
        self.history_failures = Counter(
            "sidecar_history_failures", "Rounds in which nothing could be sent to ClickHouse", registry=self.registry
        )
        self.history_waiting = Gauge(
            "sidecar_history_waiting_attempts", "Attempts that ClickHouse does not have yet", registry=self.registry
        )
        self.history_sent_up_to = Gauge(
            "sidecar_history_sent_up_to_timestamp_seconds",
            "Time of the log up to which ClickHouse has all attempts",
            registry=self.registry,
        )
        ProcessCollector(namespace="sidecar_outside", registry=self.registry)


def exposition(own: OutsideFigures, figures: Figures, busiest: Busiest) -> bytes:
    """Everything in the text format; `busiest` remembers from one call to the next whom it showed."""
    own.malformed.set(figures.malformed)
    bounded = figures._replace(figures=tuple(busiest.bound(figure) for figure in figures.figures))
    core = CollectorRegistry()
    core.register(_CoreCollector(bounded))
    return generate_latest(own.registry) + generate_latest(core)
