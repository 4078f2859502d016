"""Whose reports are believed: only whom our own server's topmost field proves, and never a mere mailbox."""

import pytest

from parsers.reports.authentication import Passed, passed
from parsers.reports.mime import Part
from policies.reporters import KNOWN, Reporter, judge, judge_bounce

SERVERS = ("mx.example.com",)


def fields(*values: str) -> Part:
    return Part(tuple(("authentication-results", value) for value in values), b"")


PROOFS = [
    ("mx.example.com; dkim=pass header.d=google.com", ["dkim google.com "]),
    ("mx.example.com 1; dkim=pass (good) header.d=Google.com header.s=x", ["dkim google.com "]),
    ('"MX.example.com"; dkim=pass header.i=@google.com', ["dkim google.com "]),
    ("mx.example.com; spf=pass smtp.mailfrom=a@google.com", ["spf google.com a@google.com"]),
    ("mx.example.com; spf=pass smtp.mailfrom=google.com", ["spf google.com "]),
    ("mx.example.com; dmarc=pass (p=reject) header.from=google.com", ["dmarc google.com "]),
    (
        "mx.example.com; dkim=pass header.d=a.example; dkim=pass header.d=b.example",
        ["dkim a.example ", "dkim b.example "],
    ),
    ("mx.example.com; none", []),
    ("mx.example.com", []),
    ("", []),
    ("other.example; dkim=pass header.d=google.com", []),
    ("mx.example.com.evil.example; dkim=pass header.d=google.com", []),
    ("mx.example.com; dkim=fail header.d=google.com", []),
    ("mx.example.com; dkim=fail (dkim=pass header.d=google.com) header.d=x", []),
    ("mx.example.com; dkim=fail (a;b; dkim=pass header.d=google.com) header.d=x", []),
    ('mx.example.com; dkim=fail reason="; dkim=pass header.d=google.com" header.d=x', []),
    ("mx.example.com; dkim=passed header.d=google.com", []),
    ("mx.example.com; spf=pass smtp.helo=google.com", []),
    ("mx.example.com; iprev=pass policy.iprev=192.0.2.1", []),
    ("mx.example.com; auth=pass smtp.auth=a@google.com", []),
]


@pytest.mark.parametrize(("field", "proved"), PROOFS)
def test_what_a_field_proves(field: str, proved: list[str]) -> None:
    assert [" ".join(each) for each in passed(fields(field), SERVERS)] == proved


def test_only_the_topmost_field_counts() -> None:
    mail = fields("mx.example.com; dkim=none", "mx.example.com; dkim=pass header.d=google.com")
    assert passed(mail, SERVERS) == ()
    assert passed(fields("mx.example.com; dkim=pass header.d=google.com"), ()) == ()


JUDGED = [
    (Passed("dkim", "google.com", ""), "x@google.com", True),
    (Passed("dkim", "mail.google.com", ""), "", True),
    (Passed("dkim", "notgoogle.com", ""), "x@google.com", False),
    (Passed("dkim", "gmail.com", ""), "x@gmail.com", False),
    (Passed("dkim", "google.com.evil.example", ""), "x@google.com", False),
    (Passed("dkim", "hotmail.com", ""), "staff@hotmail.com", True),
    (Passed("dkim", "hotmail.com", ""), "someone@hotmail.com", False),
    (Passed("dkim", "hotmail.com", ""), "", False),
    (Passed("spf", "hotmail.com", "someone@hotmail.com"), "staff@hotmail.com", False),
    (Passed("spf", "hotmail.com", "staff@hotmail.com"), "", True),
    (Passed("dkim", "yahoo.com", ""), "feedback@arf.mail.yahoo.com", False),
    (Passed("dkim", "fbl.example.net", ""), "", True),
]


@pytest.mark.parametrize(("proof", "sender", "trusted"), JUDGED)
def test_who_is_believed(proof: Passed, sender: str, trusted: bool) -> None:  # noqa: FBT001  # a row of the table
    assert judge((proof,), sender, (*KNOWN, Reporter("fbl.example.net", "fbl.example.net"))).trusted is trusted


def test_nobody_is_believed_without_proof() -> None:
    assert not judge((), "staff@hotmail.com", KNOWN).trusted


def test_a_bounce_is_believed_from_the_recipients_own_side() -> None:
    def last_two(domain: str) -> str:
        return ".".join(domain.split(".")[-2:])

    proofs = (Passed("dkim", "mx.isp.example", ""),)
    assert judge_bounce(proofs, "user@isp.example", last_two)
    assert not judge_bounce(proofs, "user@other.example", last_two)
    assert not judge_bounce(proofs, "", last_two)
    assert not judge_bounce((), "user@isp.example", last_two)
