"""Which provider a host or a domain belongs to."""

import pytest

from policies.provider_directory import ProviderDirectory, last_two_labels
from policies.rules import parse_provider
from sidecar.rules import load, organizational_domain

PROVIDERS = load().providers

HOSTS = [
    ("gmail-smtp-in.l.google.com", "google"),
    ("ALT1.ASPMX.L.GOOGLE.com", "google"),
    ("aspmx2.googlemail.com.", "google"),
    ("hotmail-com.olc.protection.outlook.com", "microsoft"),
    ("contoso-com.mail.protection.outlook.com", "microsoft-365"),
    ("contoso-com.o-v1.mx.microsoft", "microsoft-365"),
    ("mta7.am0.yahoodns.net", "yahoo"),
    ("mx3.mail.yahoo.co.jp", "yahoo-japan"),
    ("mx01.mail.icloud.com", "apple"),
    ("mx2.mxge.comcast.net", "comcast"),
    ("cxr.mx.a.cloudfilter.net", "cox"),
    ("pkvw-mx.msg.pkvw.co.charter.net", "spectrum"),
    ("mx00.emig.gmx.net", "gmx"),
    ("mx-ha02.web.de", "gmx"),
    ("mxs.mail.ru", "mail-ru"),
    ("163mx01.mxmail.netease.com", "netease"),
    ("mx0a-00123456.pphosted.com", "proofpoint"),
    ("us-smtp-inbound-1.mimecast.com", "mimecast"),
    ("d12345a.ess.barracudanetworks.com", "barracuda"),
    ("mx.mail.example.co.uk", "example.co.uk"),
    ("mx1.customer.example.org", "example.org"),
    ("notgoogle.com", "notgoogle.com"),
    ("google.com.example.org", "example.org"),
    ("", None),
    ("none", None),
    ("localhost", None),
    ("198.51.100.1", None),
    ("2001:db8::25", None),
]


@pytest.mark.parametrize(("host", "provider"), HOSTS)
def test_host(host: str, provider: str | None) -> None:
    assert PROVIDERS.of_host(host) == provider


@pytest.mark.parametrize(
    ("domain", "provider"),
    [
        ("gmail.com", "google"),
        ("GMAIL.COM", "google"),
        ("outlook.com", "microsoft"),
        ("hotmail.fr", "microsoft"),
        ("aol.com", "yahoo"),
        ("icloud.com", "apple"),
        ("web.de", "gmx"),
        ("nc.rr.com", "spectrum"),
        ("sub.gmail.com", None),
        ("example.com", None),
        ("", None),
    ],
)
def test_domain(domain: str, provider: str | None) -> None:
    assert PROVIDERS.of_domain(domain) == provider


def test_the_longest_suffix_and_the_earlier_file_win() -> None:
    files = [
        parse_provider("mine", 'mx = [".b.example"]\ndomains = ["b.example"]'),
        parse_provider("one", 'mx = [".a.b.example"]'),
        parse_provider("other", 'mx = [".b.example", ".example"]\ndomains = ["b.example"]'),
    ]
    directory = ProviderDirectory(files, last_two_labels)
    assert directory.of_host("mx.a.b.example") == "one"
    assert directory.of_host("mx.c.b.example") == "mine"
    assert directory.of_host("mx.c.example") == "other"
    assert directory.of_domain("b.example") == "mine"


def test_organizational_domain_by_the_public_suffix_list() -> None:
    assert organizational_domain("mx.example.co.uk") == "example.co.uk"
    assert organizational_domain("co.uk") == "co.uk"
    assert last_two_labels("mx.example.com") == "example.com"


def test_many_hosts_do_not_fill_the_memory() -> None:
    directory = ProviderDirectory([], last_two_labels)
    for number in range(25_000):
        assert directory.of_host(f"mx.d{number}.example") == f"d{number}.example"
    assert len(directory._answers) <= 10_000
