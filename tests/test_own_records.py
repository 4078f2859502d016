"""DKIM keys, DMARC records, MTA-STS and TLS reporting: what is well, what is not, and the words that say so."""

import base64
import re
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from parsers import dmarc_record, mta_sts
from parsers.dkim_key import DkimKeyError, read_key
from parsers.dmarc_record import DmarcError
from parsers.mta_sts import StsError
from parsers.tag_list import TagError, read_tags

RAW, DER = serialization.Encoding.Raw, serialization.Encoding.DER
SPKI, PKCS1 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, form: serialization.PublicFormat = SPKI) -> str:
    return base64.b64encode(key.public_key().public_bytes(DER, form)).decode()


RSA = {bits: rsa.generate_private_key(65537, bits) for bits in (1024, 2048)}
ED = base64.b64encode(
    ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(RAW, serialization.PublicFormat.Raw)
).decode()
GOOD = public(RSA[2048])

KEYS = {
    "plain": (f"v=DKIM1; k=rsa; p={GOOD}", "rsa", 2048),
    "short form": (f"p={GOOD}", "rsa", 2048),
    "1024": (f"v=DKIM1; p={public(RSA[1024])}", "rsa", 1024),
    "bare RSAPublicKey": (f"v=DKIM1; p={public(RSA[2048], PKCS1)}", "rsa", 2048),
    "ed25519": (f"v=DKIM1; k=ed25519; p={ED}", "ed25519", 256),
    "white space": (f" v = DKIM1 ; k = rsa ; p = {GOOD[:76]} {GOOD[76:]} ;", "rsa", 2048),
    "no padding": (f"v=DKIM1; p={GOOD.rstrip('=')}", "rsa", 2048),
    "all tags": (f"v=DKIM1; h=sha1:sha256; k=rsa; n=ours; s=email; t=s; x=1; p={GOOD}", "rsa", 2048),
}


@pytest.mark.parametrize(("record", "algorithm", "bits"), KEYS.values(), ids=list(KEYS))
def test_keys(record: str, algorithm: str, bits: int) -> None:
    key = read_key(record)
    assert (key.algorithm, key.bits, key.revoked, key.testing) == (algorithm, bits, False, False)
    assert len(key.fingerprint) == 16


def test_one_key_has_one_fingerprint_however_it_is_written() -> None:
    assert len({read_key(KEYS[name][0]).fingerprint for name in ("plain", "bare RSAPublicKey", "white space")}) == 1
    assert read_key(KEYS["1024"][0]).fingerprint != read_key(KEYS["plain"][0]).fingerprint


def test_a_revoked_key_and_a_test() -> None:
    assert read_key("v=DKIM1; p=").revoked
    assert read_key(f"v=DKIM1; t=s:y; p={GOOD}").testing


BAD_KEYS = {
    "no p": ("v=DKIM1; k=rsa", "p= is missing"),
    "v not first": (f"k=rsa; v=DKIM1; p={GOOD}", "v= must be DKIM1 and stand first"),
    "another v": (f"v=DKIM2; p={GOOD}", "v= must be DKIM1"),
    "another k": (f"v=DKIM1; k=dsa; p={GOOD}", "k=dsa: wanted rsa or ed25519"),
    "sha1 alone": (f"v=DKIM1; h=sha1; p={GOOD}", "wanted sha256"),
    "another service": (f"v=DKIM1; s=tlsrpt; p={GOOD}", "wanted email or"),
    "cut off": (f"v=DKIM1; p={GOOD[:200]}", "cut off"),
    "cut off within base64": (f"v=DKIM1; p={GOOD[:201]}", "not base64"),
    "pasted twice": (f"v=DKIM1; p={GOOD.rstrip('=')}AAAA", "not base64|goes on after the key|form"),
    "quotes kept": (f'v=DKIM1; p="{GOOD}"', "not base64"),
    "armour kept": (f"v=DKIM1; p=-----BEGIN PUBLIC KEY-----{GOOD}", "not base64"),
    "no key": ("v=DKIM1; p=aGVsbG8gd29ybGQ=", "not the form of one"),
    "ed25519 as rsa": (f"v=DKIM1; p={ED}", "no RSA key|cut off"),
    "rsa as ed25519": (f"v=DKIM1; k=ed25519; p={GOOD}", "wanted the 32"),
    "elliptic": (f"v=DKIM1; p={public(ec.generate_private_key(ec.SECP256R1()))}", "is no RSA key; k= must say"),
    "tag twice": (f"v=DKIM1; p={GOOD}; p={GOOD}", "the tag p stands twice"),
    "no tag": (f"v=DKIM1 k=rsa; {GOOD}!", "wanted tag=value|v= must"),
    "numbers that are none": ("p=" + base64.b64encode(bytes.fromhex("30060201040201ff")).decode(), "cannot be one"),
}


@pytest.mark.parametrize(("record", "says"), BAD_KEYS.values(), ids=list(BAD_KEYS))
def test_bad_keys(record: str, says: str) -> None:
    with pytest.raises(DkimKeyError, match=says):
        read_key(record)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_key_or_refused(raw: bytes) -> None:
    with suppress(DkimKeyError):
        read_key("p=" + base64.b64encode(b"\x30" + raw).decode())


DMARC = {
    "least": ("v=DMARC1; p=none", "none", "none", (), "nobody reports"),
    "usual": ("v=DMARC1;p=reject;sp=quarantine;rua=mailto:a@d.example", "reject", "quarantine", ("a@d.example",), ""),
    "two mailboxes": (
        "v=DMARC1; p=none; rua=mailto:a@d.example!10m, mailto:b@x.example", "none", "none",
        ("a@d.example", "b@x.example"), "",
    ),
    "no policy, reports": ("v=DMARC1; rua=mailto:a@d.example", "none", "none", ("a@d.example",), "taken for p=none"),
    "no mailto": ("v=DMARC1; p=none; rua=a@d.example", "none", "none", (), "wanted mailto:ADDRESS"),
    "odd tags": (
        "v=DMARC1; p=Reject; sp=no; adkim=x; pct=110; rua=mailto:a@d.example", "reject", "reject", ("a@d.example",),
        "sp=no.*adkim=x.*pct=110",
    ),
    "new tags": ("v=DMARC1; p=none; np=reject; t=y; rua=mailto:a@d.example", "none", "none", ("a@d.example",), ""),
}  # fmt: skip


@pytest.mark.parametrize(("record", "policy", "sub", "mailboxes", "remark"), DMARC.values(), ids=list(DMARC))
def test_dmarc(record: str, policy: str, sub: str, mailboxes: tuple[str, ...], remark: str) -> None:
    read = dmarc_record.read_record(record)
    assert (read.policy, read.subdomain_policy, read.aggregate) == (policy, sub, mailboxes)
    assert re.search(remark, " ".join(read.remarks))
    assert bool(read.remarks) == bool(remark)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("v=DMARC1", "p= is missing"),
        ("v=DMARC1; p=", "p=: wanted p=none"),
        ("v=DMARC1; p=monitor", "p=monitor: wanted"),
        ("v=dmarc1; p=none", "wanted 'v=DMARC1;'"),
        ("p=none; v=DMARC1", "wanted 'v=DMARC1;'"),
        ("v=DMARC1; p=none; p=reject", "stands twice"),
        ("v=DMARC1; p=none, rua", "p=none, rua: wanted"),
    ],
)
def test_bad_dmarc(record: str, says: str) -> None:
    with pytest.raises(DmarcError, match=says):
        dmarc_record.read_record(record)


POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.d.example\r\nmx: *.backup.example\r\nmax_age: 604800\r\n"


def test_a_policy() -> None:
    policy = mta_sts.read_policy(POLICY)
    assert policy == mta_sts.Policy("enforce", ("mx.d.example", "*.backup.example"), 604_800)
    hosts = ("MX.d.example.", "a.backup.example", "a.b.backup.example", "backup.example", "x.example")
    assert mta_sts.left_out(policy, hosts) == ["a.b.backup.example", "backup.example", "x.example"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "version is ''"),
        (b"<html>not found</html>", "wanted NAME: VALUE"),
        (POLICY.replace(b"STSv1", b"STSv2"), "version is 'STSv2'"),
        (POLICY.replace(b"enforce", b"on"), "mode is 'on'"),
        (POLICY.replace(b"604800", b"99999999"), "max_age is '99999999'"),
        (POLICY.replace(b"604800", b"one week"), "max_age is 'one week'"),
        (POLICY.replace(b"mx:", b"mz:"), "names no mx"),
        (POLICY + b"x: y\n" * 20_000, "at most 65536 are read"),
    ],
)
def test_bad_policies(body: bytes, says: str) -> None:
    with pytest.raises(StsError, match=says):
        mta_sts.read_policy(body)


def test_records_about_encryption() -> None:
    assert mta_sts.read_id("v=STSv1; id=20260101T000000;") == "20260101T000000"
    assert mta_sts.read_report_addresses("v=TLSRPTv1; rua=mailto:t@d.example,https://r.example/v1") == (
        "mailto:t@d.example",
        "https://r.example/v1",
    )
    with pytest.raises(StsError, match="wanted 1 to 32"):
        mta_sts.read_id("v=STSv1; id=2026-01-01")
    with pytest.raises(StsError, match="rua= is missing"):
        mta_sts.read_report_addresses("v=TLSRPTv1;")
    with pytest.raises(StsError, match="wanted mailto:ADDRESS"):
        mta_sts.read_report_addresses("v=TLSRPTv1; rua=t@d.example")


@given(st.text())
def test_any_text_is_a_list_of_tags_or_refused(text: str) -> None:
    with suppress(TagError):
        read_tags(text)


@given(st.binary())
def test_any_bytes_are_a_policy_or_refused(body: bytes) -> None:
    with suppress(StsError):
        mta_sts.read_policy(body)
