"""Report mail that wants to do harm, or is only broken: refused with a clear error, in bounded time and memory."""

import base64
import gzip
import io
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.reports import container
from parsers.reports.authentication import passed
from parsers.reports.container import unpacked
from parsers.reports.dmarc import Aggregate, read_aggregate
from parsers.reports.mail import Found, read_reports
from parsers.reports.mime import MESSAGE_MAX, Part, date_in, read_mail
from parsers.reports.original import Tracing, read_verp
from parsers.reports.refusal import ReportError
from parsers.reports.tls_rpt import read_tls_report

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
MEMORY = 160 * MIB
"""Ten times the largest mail; a bomb would take a gigabyte."""
SECONDS = 20.0
"""Of CPU, under tracemalloc, which makes everything several times slower; what is not bounded takes hours."""

HEAD = (
    b"<feedback><report_metadata><org_name>o</org_name><report_id>1</report_id>"
    b"<date_range><begin>1795046400</begin><end>1795132799</end></date_range></report_metadata>"
    b"<policy_published><domain>shop.example</domain></policy_published>"
)
RECORD = (
    b"<record><row><source_ip>192.0.2.%d</source_ip><count>1</count><policy_evaluated><disposition>none</disposition>"
    b"<dkim>pass</dkim><spf>pass</spf></policy_evaluated></row><identifiers><header_from>shop.example</header_from>"
    b"</identifiers><auth_results><dkim><domain>shop.example</domain><result>pass</result></dkim>"
    b"<spf><domain>shop.example</domain><result>pass</result></spf></auth_results></record>"
)
TAIL = b"</feedback>"
REPORT = HEAD + RECORD % 7 + TAIL


@contextmanager
def bounded() -> Iterator[None]:
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        assert time.process_time() - began < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def attached(data: bytes, kind: str = "application/octet-stream") -> bytes:
    return f"Content-Type: {kind}\nContent-Transfer-Encoding: base64\n\n".encode() + base64.encodebytes(data)


def read(mail: bytes) -> Found:
    return read_reports(read_mail(mail), Tracing())


def records(count: int) -> bytes:
    return HEAD + b"".join(RECORD % (i % 250) for i in range(count)) + TAIL


# Archives.


def gzip_of_zeros(size: int, begin: bytes = b"") -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = [engine.compress(begin)]
    packed += [engine.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join((*packed, engine.flush()))


def zip_of(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return file.getvalue()


def zip_of_a_gigabyte() -> bytes:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.xml", "w", force_zip64=True) as out,
    ):
        out.write(HEAD)
        for _ in range(1024):
            out.write(b" " * MIB)
    return file.getvalue()


def with_password() -> bytes:
    data = bytearray(zip_of(("x.xml", REPORT)))
    data[6] |= 1
    return bytes(data)


def of_wrong_sum() -> bytes:
    data = bytearray(zip_of(("x.xml", REPORT)))
    data[14] ^= 0xFF
    return bytes(data)


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip of 1 GB": (
        lambda: gzip_of_zeros(1024 * MIB, HEAD),
        "unpacks to more than 50 MiB|not well-formed|a tag of more",
    ),
    "gzip of 1 GB of blanks": (lambda: gzip.compress(HEAD + b" " * (60 * MIB), 9), "unpacks to more than 50 MiB"),
    "zip of 1 GB": (zip_of_a_gigabyte, "unpacks to more than 50 MiB"),
    "gzip of a gzip bomb": (
        lambda: gzip.compress(gzip_of_zeros(1024 * MIB, HEAD)),
        "unpacks to|not well-formed|a tag of",
    ),
    "three times over": (lambda: gzip.compress(gzip.compress(gzip.compress(REPORT))), "more than 2 times over"),
    "gzip that ends early": (lambda: gzip.compress(REPORT * 5)[:-20], "ends in the middle"),
    "gzip of noise": (lambda: b"\x1f\x8b\x08\x00" + bytes(range(256)), "a damaged archive"),
    "gzip of many members": (lambda: gzip.compress(HEAD) + gzip.compress(b" ") * 200, "more than 100 members"),
    "gzip of something else": (lambda: gzip.compress(b"MZ\x90"), "neither XML nor JSON"),
    "zip with a password": (with_password, "a password"),
    "zip of an odd method": (lambda: zip_of(("x", REPORT), method=zipfile.ZIP_BZIP2), "packed by method 12"),
    "zip of a wrong checksum": (of_wrong_sum, "its checksum does not match"),
    "zip that ends early": (lambda: zip_of(("x.xml", REPORT))[:200], "ends in the middle"),
    "zip that ends in its header": (lambda: zip_of(("x.xml", REPORT))[:20], "without a file"),
    "zip of nothing": (lambda: zip_of(("d/", b"")), "without a file"),
    "zip of empty files": (
        lambda: zip_of(*((f"{i}", b"") for i in range(200)), method=0),
        "first 100 entries are empty",
    ),
    "too large": (lambda: b"\x1f\x8b" + bytes(6 * MIB), "of more than 5 MiB"),
}


@pytest.mark.parametrize(("made", "why"), ARCHIVES.values(), ids=list(ARCHIVES))
def test_archives_that_are_refused(made: Callable[[], bytes], why: str) -> None:
    mail = attached(made())
    with bounded():
        found = read(mail)
    assert found.reports == ()
    with pytest.raises(ReportError, match=why):
        raise ReportError(found.why)


GOOD = {
    "gzip": lambda: gzip.compress(REPORT),
    "gzip with padding": lambda: gzip.compress(REPORT) + b"\0" * 100,
    "gzip of two members": lambda: gzip.compress(REPORT[:50]) + gzip.compress(REPORT[50:]),
    "gzip of a zip": lambda: gzip.compress(zip_of(("x.xml", REPORT))),
    "zip": lambda: zip_of(("x.xml", REPORT)),
    "zip, stored": lambda: zip_of(("x.xml", REPORT), method=zipfile.ZIP_STORED),
    "zip with a directory first": lambda: zip_of(("d/", b""), ("d/x.xml", REPORT)),
    "zip of two files": lambda: zip_of(("x.xml", REPORT), ("y.xml", b"<other/>")),
    "XML after a BOM": lambda: b"\xef\xbb\xbf\r\n" + REPORT,
    "XML in UTF-16": lambda: ('<?xml version="1.0" encoding="UTF-16"?>' + REPORT.decode()).encode("utf-16"),
}


@pytest.mark.parametrize("made", GOOD.values(), ids=list(GOOD))
def test_archives_that_are_taken(made: Callable[[], bytes]) -> None:
    for declared in ("application/octet-stream", "application/zip", "application/gzip", "image/png"):
        (report,) = read(attached(made(), declared)).reports
        assert isinstance(report, Aggregate)
        assert len(report.rows) == 1


def test_a_zip_whose_sizes_follow_the_file() -> None:
    """As a program writes it that cannot seek back."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    file = Pipe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.xml", "w") as out:
        out.write(REPORT)
    (report,) = read(attached(file.getvalue())).reports
    assert isinstance(report, Aggregate)


# XML.

LAUGHS = b'<!DOCTYPE f [<!ENTITY a0 "ha">%s]><feedback>&a9;</feedback>' % b"".join(
    b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 10)
)
XML: dict[str, tuple[Callable[[], bytes], str]] = {
    "a billion laughs": (lambda: LAUGHS, "document type"),
    "a file from outside": (
        lambda: b'<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]><feedback>&x;</feedback>',
        "document type",
    ),
    "a document type alone": (lambda: b'<!DOCTYPE f SYSTEM "http://192.0.2.1/x.dtd">' + REPORT, "document type"),
    "an entity of its own": (lambda: b"<feedback>&nobody;</feedback>", "not well-formed"),
    "a deep tree": (lambda: HEAD + b"<a>" * 1_000_000, "nested more than 20 deep"),
    "a tag without end": (lambda: HEAD + b"<a " + b"x" * (40 * MIB), "a tag of more than 1 MiB"),
    "an attribute without end": (lambda: HEAD + b'<a x="' + b"x" * (40 * MIB), "a tag of more than 1 MiB"),
    "a comment without end": (lambda: HEAD + b"<!-- " + b"x" * (40 * MIB), "a tag of more than 1 MiB"),
    "too many results": (
        lambda: HEAD + b"<record><auth_results>" + b"<dkim/>" * 300_001,
        "more than 300000 results",
    ),
    "no record": (lambda: HEAD + TAIL, r"without a readable record \(0 in all\)"),
    "no number of messages": (lambda: REPORT.replace(b"<count>1<", b"<count>-1<"), r"record \(1 in all\)"),
    "ends early": (lambda: REPORT[:-20], "not well-formed"),
    "dates in words": (lambda: REPORT.replace(b"1795046400", b"yesterday"), "date_range/begin: found 'yesterday'"),
    "dates far away": (lambda: REPORT.replace(b"1795046400", b"9" * 400), "date_range/begin: found '999"),
    "no domain": (
        lambda: REPORT.replace(b"<domain>", b"<host>", 1).replace(b"</domain>", b"</host>", 1),
        "policy domain",
    ),
}


@pytest.mark.parametrize(("made", "why"), XML.values(), ids=list(XML))
def test_xml_that_is_refused(made: Callable[[], bytes], why: str) -> None:
    data = made()
    with bounded(), pytest.raises(ReportError, match=why):
        read_aggregate([data])


MEASURED = """
import pathlib, resource, sys
from parsers.reports.mail import read_reports
from parsers.reports.mime import read_mail
from parsers.reports.original import Tracing
def peak():  # of this program alone: ru_maxrss is at least that of the process that started it
    return int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
mail, before = pathlib.Path(sys.argv[1]).read_bytes(), peak()
found = read_reports(read_mail(mail), Tracing())
used = resource.getrusage(resource.RUSAGE_SELF)
print(sum(len(report.rows) for report in found.reports), used.ru_utime + used.ru_stime, (peak() - before) * 1024, found.why)
"""


@pytest.mark.parametrize(("count", "read", "why"), [(100_000, 100_000, ""), (100_001, 0, "more than 100000 records")])
def test_a_hundred_thousand_records(tmp_path: Path, count: int, read: int, why: str) -> None:
    """In a process of its own, for tracing would make it many times slower."""
    mail = tmp_path / "mail"
    mail.write_bytes(attached(gzip.compress(records(count))))
    ran = subprocess.run([sys.executable, "-c", MEASURED, mail], cwd=ROOT, capture_output=True, text=True, check=True)
    rows, seconds, memory, *said = ran.stdout.split(maxsplit=3)
    assert (int(rows), " ".join(said).strip()) == (read, why)
    assert float(seconds) < SECONDS
    assert MIB < int(memory) < MEMORY


def test_a_text_without_end_is_cut() -> None:
    with bounded():
        report = read_aggregate([HEAD.replace(b">o<", b">" + b"o" * (40 * MIB) + b"<"), RECORD % 7, TAIL])
    assert report.organization == "o" * 1000


CHARSETS = {
    "Latin-1 that says it is UTF-8": (
        b'<?xml version="1.0" encoding="UTF-8"?>',
        "Bücher".encode("latin-1"),
        "B\ufffdcher",
    ),
    "Latin-1 that says nothing": (b"", "Bücher".encode("latin-1"), "B\ufffdcher"),
    "Latin-1": (b'<?xml version="1.0" encoding="ISO-8859-1"?>', "Bücher".encode("latin-1"), "Bücher"),
    "Windows": (b'<?xml version="1.0" encoding="windows-1252"?>', "Bücher".encode("cp1252"), "Bücher"),
    "a charset that nobody knows": (b'<?xml version="1.0" encoding="x-own"?>', "Bücher".encode(), "Bücher"),
    "a codec that is no charset": (b'<?xml version="1.0" encoding="punycode"?>', "Bücher".encode(), "Bücher"),
    "control characters": (b"", b"B\x01\x00cher", "Bcher"),
}


@pytest.mark.parametrize(("declared", "name", "read_as"), CHARSETS.values(), ids=list(CHARSETS))
def test_charsets(declared: bytes, name: bytes, read_as: str) -> None:
    report = read_aggregate([declared + REPORT.replace(b">o<", b">" + name + b"<")])
    assert report.organization == read_as


# JSON.

JSON: dict[str, tuple[bytes, str]] = {
    "nested": (b'{"policies":' + b"[" * 500_000, "not valid JSON"),
    "large": (b'{"policies":[' + b"[]," * (2 * MIB) + b"0]}", "more than 4 MiB"),
    "many policies": (
        b'{"organization-name":"o","report-id":"1","policies":[' + b"{}," * 2000 + b"0]}",
        "2000 policies",
    ),
    "a number without end": (b'{"policies":' + b"9" * 100_000 + b"}", "not valid JSON"),
    "something else": (b'{"policy": 1}', 'without "policies"'),
    "no name": (b'{"policies":[]}', "without its organization-name"),
    "no times": (b'{"organization-name":"o","report-id":"1","policies":[]}', "start-datetime: found ''"),
}


@pytest.mark.parametrize(("data", "why"), JSON.values(), ids=list(JSON))
def test_json_that_is_refused(data: bytes, why: str) -> None:
    with bounded(), pytest.raises(ReportError, match=why):
        read_tls_report([data])


# Mails.


def nested(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (i, i) for i in range(depth))


MAILS: dict[str, tuple[Callable[[], bytes], str]] = {
    "too large": (lambda: b"a: b\n\n" + bytes(MESSAGE_MAX), "more than 16 MiB"),
    "nested": (lambda: nested(1000), "nested more than 6 deep"),
    "many parts": (
        lambda: b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 500_000,
        "more than 100 parts",
    ),
    "a long header": (lambda: b"a: " + b"x" * MIB, "header of more than 256 KiB"),
    "many fields": (lambda: b"a: b\n" * 20_000, "header of 20000 fields"),
}


@pytest.mark.parametrize(("made", "why"), MAILS.values(), ids=list(MAILS))
def test_mails_that_are_refused(made: Callable[[], bytes], why: str) -> None:
    data = made()
    with bounded(), pytest.raises(ReportError, match=why):
        read_mail(data)


ODD = {
    "nothing": b"",
    "no header": b"\n\nbody",
    "zeros": bytes(1000),
    "a multipart without a boundary": b"Content-Type: multipart/report\n\nbody",
    "a boundary that never comes": b"Content-Type: multipart/mixed; boundary=b\n\nbody",
    "a boundary inside itself": b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n--b--",
    "an unknown charset": b"Content-Type: text/plain; charset=x-own\n\n\xff",
    "a charset that is none": b"Content-Type: text/plain; charset=iso-8859-99\n\n\xff",
    "base64 that is none": b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n!!!!a",
    "an own encoding": b"Content-Type: text/plain\nContent-Transfer-Encoding: x-uuencode\n\nbegin 644 x",
    "a message in a message in a message": b"Content-Type: message/rfc822\n\n" * 1000,
}


@pytest.mark.parametrize("mail", ODD.values(), ids=list(ODD))
def test_broken_mails_are_no_reports(mail: bytes) -> None:
    assert read(mail).reports == ()


EXIM = b"X-Failed-Recipients: a@b.example\n\nThis message was created automatically by mail delivery software\n"
EXCHANGE = b"a: b\n\nYour message did not reach some or all of the intended recipients\n"
SLOW = {
    "blank lines": EXCHANGE + b"\n" * (MIB),
    "blanks": EXCHANGE + b" " * (MIB),
    "addresses": EXCHANGE + b"a@b.example\n" * 90_000,
    "addresses without end": EXCHANGE + b"a" * MIB + b"@",
    "statuses": EXCHANGE + b"a@b.example\n" + b"<a #5.1.1 " * 90_000,
    "dashes": EXIM + b"-" * MIB,
    "copies": EXIM + b"--- This is a copy of " + b"-" * MIB,
    "paragraphs": b"a: b\n\nHi. This is the qmail-send program at x.\n\n" + b"<a@b.example>:\n\n" * 60_000,
    "digits": b"X-Failed-Recipients: a@b.example\n\n  a@b.example\n    " + b"550" * 80_000,
    "parameters": b"Content-Type: multipart/mixed" + b"; boundary" * 20_000 + b"\n\n",
    "a boundary's blanks": b"Content-Type: multipart/mixed; boundary=b\n\n" + (b"--b" + b" " * 1000) * 10_000,
}


@pytest.mark.parametrize("mail", SLOW.values(), ids=list(SLOW))
def test_texts_that_take_long_in_bad_expressions(mail: bytes) -> None:
    with bounded():
        read(mail)


@pytest.mark.parametrize(
    "field",
    [
        "mx; " + "(" * 9000,
        'mx; "' * 4000,
        "mx; spf=pass " + "a" * 19_000,
        "mx" + "; dkim=pass header.d=x" * 800,
        "mx; " + "\\" * 19_000,
    ],
)
def test_authentication_results_that_take_long(field: str) -> None:
    with bounded():
        passed(Part((("authentication-results", field),), b""), ("mx",))


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_mail(data: bytes) -> None:
    read(data)
    read(attached(data))


@settings(deadline=None)
@given(
    st.binary(max_size=400),
    st.integers(0, 400),
    st.sampled_from([gzip.compress(REPORT), zip_of(("x", REPORT)), REPORT]),
)
def test_damaged_reports_are_refused_or_read(noise: bytes, at: int, report: bytes) -> None:
    read(attached(report[:at] + noise + report[at + len(noise) :]))


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_words_are_a_date_an_address_and_a_field(text: str) -> None:
    date_in(text)
    read_verp(text, "+=")
    passed(Part((("authentication-results", f"mx; {text}"),), b""), ("mx",))


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 3))
def test_what_was_packed_comes_out(data: bytes, members: int) -> None:
    packed = gzip.compress(b"<" + data) * members
    assert b"".join(unpacked(packed)) == (b"<" + data) * members
    assert container.sniff(packed) is container.Kind.GZIP
