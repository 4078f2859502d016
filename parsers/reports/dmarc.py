"""DMARC aggregate reports (RFC 7489 appendix C, RFC 9990), read as a stream of XML.

Element names count without their namespace and case, unknown elements are passed over; a document type, an entity,
a size beyond the limits are refused.
"""

import ipaddress
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from xml.parsers import expat

from parsers.reports.refusal import ReportError

RECORDS_MAX: Final = 100_000
RESULTS_MAX: Final = 300_000
"""DKIM and SPF results and reasons of a whole report."""
DEPTH_MAX: Final = 20
TEXT_MAX: Final = 1_000
"""Characters of one element; more is cut."""
TAG_MAX: Final = 1 << 20
"""Bytes that a single tag or comment may take."""
COUNT_MAX: Final = 1 << 40

RFC_7489, RFC_9990 = "7489", "9990"


class Policy(NamedTuple):
    """What the domain had published; "" for what the report leaves out."""

    domain: str
    adkim: str = ""
    aspf: str = ""
    p: str = ""
    sp: str = ""
    np: str = ""
    pct: str = ""
    fo: str = ""
    testing: str = ""
    discovery_method: str = ""


class DkimResult(NamedTuple):
    domain: str
    selector: str
    result: str
    """One of DKIM_RESULTS, else "unknown"."""


class SpfResult(NamedTuple):
    domain: str
    scope: str
    result: str
    """One of SPF_RESULTS, else "unknown"."""


class Reason(NamedTuple):
    type: str
    comment: str


class Row(NamedTuple):
    """A record: so many messages from one address that fared alike."""

    source_ip: str
    messages: int
    disposition: str
    """none, quarantine, reject, pass; "unknown" for anything else, as below."""
    dkim: str
    """pass or fail: whether an aligned signature passed, not whether any did."""
    spf: str
    reasons: tuple[Reason, ...]
    header_from: str
    envelope_from: str
    envelope_to: str
    dkim_results: tuple[DkimResult, ...]
    spf_results: tuple[SpfResult, ...]


class Aggregate(NamedTuple):
    """One report."""

    organization: str
    email: str
    report_id: str
    begin: float
    """Seconds since the epoch, UTC."""
    end: float
    rfc: str
    policy: Policy
    rows: tuple[Row, ...]
    unreadable: int
    """Records left out: no address, no count."""
    errors: tuple[str, ...]


DISPOSITIONS: Final = frozenset({"none", "quarantine", "reject", "pass"})
DKIM_RESULTS: Final = frozenset({"none", "pass", "fail", "policy", "neutral", "temperror", "permerror"})
SPF_RESULTS: Final = frozenset({"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"})

_META, _RANGE, _POLICY = (
    "feedback/report_metadata/",
    "feedback/report_metadata/date_range/",
    "feedback/policy_published/",
)
_RECORD, _REASON = "feedback/record", "feedback/record/row/policy_evaluated/reason"
_DKIM, _SPF = "feedback/record/auth_results/dkim", "feedback/record/auth_results/spf"
_HEAD: Final = frozenset(
    {
        *(_META + name for name in ("org_name", "email", "report_id", "generator")),
        *(_RANGE + name for name in ("begin", "end")),
        *(_POLICY + name for name in Policy._fields),
    }
)
_IN_RECORD: Final = {
    f"{_RECORD}/{path}/{name}": name
    for path, names in {
        "row": ("source_ip", "count"),
        "row/policy_evaluated": ("disposition", "dkim", "spf"),
        "identifiers": ("envelope_to", "envelope_from", "header_from"),
    }.items()
    for name in names
}
_GROUPS: Final = frozenset({_REASON, _DKIM, _SPF})
_NEWER: Final = frozenset({_META + "generator", _POLICY + "np", _POLICY + "testing", _POLICY + "discovery_method"})
"""Elements that RFC 9990 added."""


def read_aggregate(pieces: Iterable[bytes]) -> Aggregate:
    """Read a report. Raises ReportError.

    What is no UTF-8 although it says so is read a second time, with the bytes in question replaced.
    """
    kept = list(pieces)  # at most what `container` lets through
    try:
        return _read(kept, None)
    except _InvalidTextError:
        return _read(_repaired(kept), "utf-8")


class _InvalidTextError(Exception):
    """The XML holds bytes that are no text in its charset, or characters that XML forbids."""


_TEXT_ERRORS: Final = frozenset(
    {
        expat.errors.codes[expat.errors.XML_ERROR_INVALID_TOKEN],
        expat.errors.codes[expat.errors.XML_ERROR_UNKNOWN_ENCODING],
        expat.errors.codes[expat.errors.XML_ERROR_PARTIAL_CHAR],
        expat.errors.codes[expat.errors.XML_ERROR_INCORRECT_ENCODING],
    }
)
_FORBIDDEN: Final = {code: None for code in range(32) if code not in {9, 10, 13}}


def _repaired(pieces: Iterable[bytes]) -> Iterator[bytes]:
    decoder = getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        yield decoder.decode(piece).translate(_FORBIDDEN).encode()


def _read(pieces: Iterable[bytes], charset: str | None) -> Aggregate:
    reading = _Reading()
    parser = expat.ParserCreate(charset)
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.characters
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.EntityDeclHandler = _refuse_doctype
    fed = 0
    try:
        for piece in pieces:
            for at in range(0, len(piece), 64 << 10):
                part = piece[at : at + (64 << 10)]
                parser.Parse(part, False)
                fed += len(part)
                if fed - max(parser.CurrentByteIndex, 0) > TAG_MAX:
                    raise ReportError(f"a tag of more than {TAG_MAX >> 20} MiB")
        parser.Parse(b"", True)
    except (LookupError, UnicodeError) as error:  # from the codec that the XML asks for
        raise _InvalidTextError from error
    except expat.ExpatError as error:
        if charset is None and error.code in _TEXT_ERRORS:
            raise _InvalidTextError from error
        raise ReportError(f"not well-formed XML: {error}") from error
    return reading.aggregate()


def _refuse_doctype(*_: object) -> None:
    raise ReportError("a document type or an entity in it; a report has none, and attacks are made of them")


class _Reading:
    """What was read of a report so far."""

    def __init__(self) -> None:
        self._paths: list[str] = [""]
        self._known_paths: dict[tuple[str, str], str] = {}
        self._text: list[str] = []
        self._length = 0
        self._head: dict[str, str] = {}
        self._errors: list[str] = []
        self._record: dict[str, str] = {}
        self._group: dict[str, str] = {}
        self._found: dict[str, list[Mapping[str, str]]] = {}
        self._results = 0
        self._records = 0
        self._rows: list[Row] = []
        self._newer = False
        self._same: dict[str, str] = {}

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        path = self._known_paths.get((self._paths[-1], tag)) or self._path(tag)
        if len(self._paths) == 1:
            if path != "feedback":
                raise ReportError(f"the XML is <{tag[:40]}>, wanted <feedback>")
            self._newer = any(value.endswith(":dmarc-2.0") for value in attributes.values())
        if len(self._paths) > DEPTH_MAX:
            raise ReportError(f"elements nested more than {DEPTH_MAX} deep")
        self._paths.append(path)
        self._text, self._length = [], 0
        if path == _RECORD:
            self._record, self._found = {}, {each: [] for each in _GROUPS}
            self._records += 1
            if self._records > RECORDS_MAX:
                raise ReportError(f"more than {RECORDS_MAX} records")
        elif path in _GROUPS:
            self._group = {}

    def _path(self, tag: str) -> str:
        """Where an element stands, without namespace and case."""
        path = f"{self._paths[-1]}/{tag.rpartition(':')[2].lower()[:40]}".lstrip("/")
        if len(self._known_paths) < 1_000:
            self._known_paths[self._paths[-1], tag] = path
        return path

    def characters(self, text: str) -> None:
        if self._length < TEXT_MAX:
            self._text.append(text)
            self._length += len(text)

    def end(self, _tag: str) -> None:
        path = self._paths.pop()
        text = "".join(self._text).strip()[:TEXT_MAX] if self._text else ""
        self._text, self._length = [], 0
        if path in _IN_RECORD:
            self._record.setdefault(_IN_RECORD[path], text)
        elif path == _RECORD:
            self._end_record()
        elif path in _GROUPS:
            self._results += 1
            if self._results > RESULTS_MAX:
                raise ReportError(f"more than {RESULTS_MAX} results of DKIM and SPF")
            self._found[path].append(self._group)
        elif self._paths[-1] in _GROUPS:
            self._group.setdefault(path.rpartition("/")[2], text)
        elif path in _HEAD:
            self._head.setdefault(path, text)
        elif path == _META + "error" and len(self._errors) < 10:
            self._errors.append(text)

    def _end_record(self) -> None:
        one = self._record.get
        try:
            address = str(ipaddress.ip_address(one("source_ip", "")))
            count = int(one("count", "")[:20])
        except ValueError:
            return
        if not 0 < count <= COUNT_MAX:
            return
        self._rows.append(
            Row(
                self._known(address),
                count,
                _one_of(DISPOSITIONS, one("disposition", "")),
                _one_of(_PASS_OR_FAIL, one("dkim", "")),
                _one_of(_PASS_OR_FAIL, one("spf", "")),
                tuple(Reason(self._word(each, "type"), each.get("comment", "")) for each in self._filled(_REASON)),
                self._domain(one("header_from", "")),
                self._domain(one("envelope_from", "")),
                self._domain(one("envelope_to", "")),
                tuple(self._dkim(each) for each in self._filled(_DKIM)),
                tuple(self._spf(each) for each in self._filled(_SPF)),
            )
        )

    def _filled(self, path: str) -> Iterator[Mapping[str, str]]:
        """Without the empty elements that some write where there is nothing to say."""
        return (each for each in self._found[path] if any(each.values()))

    def _dkim(self, said: Mapping[str, str]) -> DkimResult:
        result = _one_of(DKIM_RESULTS, said.get("result", ""))
        return DkimResult(self._domain(said.get("domain", "")), self._known(said.get("selector", "")), result)

    def _spf(self, said: Mapping[str, str]) -> SpfResult:
        result = _one_of(SPF_RESULTS, said.get("result", ""))
        return SpfResult(self._domain(said.get("domain", "")), self._word(said, "scope"), result)

    def _known(self, text: str) -> str:
        """One string for all that are equal: a report names few."""
        return self._same.setdefault(text, text)

    def _domain(self, text: str) -> str:
        return self._known(_domain(text))

    def _word(self, said: Mapping[str, str], name: str) -> str:
        return self._known(said.get(name, "").lower()[:40])

    def aggregate(self) -> Aggregate:
        """Raises ReportError where what tells reports apart is missing."""
        head = self._head.get
        domain = _domain(head(_POLICY + "domain", ""))
        organization = head(_META + "org_name", "") or head(_META + "email", "")
        named = {"org_name": organization, "report_id": head(_META + "report_id", ""), "policy domain": domain}
        for name, value in named.items():
            if not value:
                raise ReportError(f"a DMARC report without its {name}")
        begin, end = self._moment("begin"), self._moment("end")
        if begin > end:
            raise ReportError(f"a DMARC report that begins ({begin:.0f}) after it ends ({end:.0f})")
        if not self._rows:
            raise ReportError(f"a DMARC report without a readable record ({self._records} in all)")
        newer = self._newer or not _NEWER.isdisjoint(self._head) or any(row.disposition == "pass" for row in self._rows)
        return Aggregate(
            organization,
            head(_META + "email", ""),
            named["report_id"],
            begin,
            end,
            RFC_9990 if newer else RFC_7489,
            Policy(domain, *(head(_POLICY + name, "").lower()[:40] for name in Policy._fields[1:])),
            tuple(self._rows),
            self._records - len(self._rows),
            tuple(self._errors),
        )

    def _moment(self, name: str) -> float:
        said = self._head.get(_RANGE + name, "")
        # Some count in fractions of a second, which is no harm.
        whole = said.partition(".")[0]
        if not (whole.isdecimal() and whole.isascii() and len(whole) <= 11):
            raise ReportError(f"date_range/{name}: found {said[:40]!r}, wanted seconds since 1970")
        return float(whole)


_PASS_OR_FAIL: Final = frozenset({"pass", "fail"})


def _one_of(known: frozenset[str], text: str) -> str:
    word = text.lower()
    return word if word in known else "unknown"


def _domain(text: str) -> str:
    return text.lower().rstrip(".")[:255]
