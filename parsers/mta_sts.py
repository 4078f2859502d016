"""MTA-STS (RFC 8461) and TLS reporting (RFC 8460): what a domain says about encrypted mail to it.

Knows both TXT records, the policy file, and which MX hosts a policy lets in.
"""

from collections.abc import Iterable
from typing import NamedTuple

from parsers.tag_list import TagError, begins_with_version, read_tags

MAX_AGE = 31_557_600
"""Seconds; the longest that a policy may be kept (section 3.2)."""
POLICY_MAX = 65_536
"""Bytes of a policy file that are read (section 3.3 proposes 64 KiB)."""


class StsError(Exception):
    """A record or policy that senders cannot use: says why."""


class Policy(NamedTuple):
    mode: str
    """enforce, testing or none."""
    hosts: tuple[str, ...]
    """Names of MX hosts, `*.example.com` for any one label."""
    max_age: int
    """Seconds."""


def is_sts(text: str) -> bool:
    return begins_with_version(text, "STSv1")


def is_tls_report(text: str) -> bool:
    return begins_with_version(text, "TLSRPTv1")


def read_id(text: str) -> str:
    """Give the id of a record at _mta-sts, which changes with the policy. Raises StsError."""
    tags = _tags(text)
    policy_id = tags.get("id", "")
    if not (policy_id.isalnum() and policy_id.isascii() and len(policy_id) <= 32):
        raise StsError(f"id={policy_id[:40]}: wanted 1 to 32 letters and digits")
    return policy_id


def read_report_addresses(text: str) -> tuple[str, ...]:
    """Give where a record at _smtp._tls sends reports, as URIs. Raises StsError."""
    addresses = tuple(filter(None, (part.strip() for part in _tags(text).get("rua", "").split(","))))
    for address in addresses:
        if not address.lower().startswith(("mailto:", "https://")):
            raise StsError(f"rua: found {address[:60]!r}, wanted mailto:ADDRESS or an https:// URL")
    if not addresses:
        raise StsError("rua= is missing, wanted where reports go")
    return addresses


def _tags(text: str) -> dict[str, str]:
    try:
        return dict(read_tags(text))
    except TagError as error:
        raise StsError(str(error)) from error


def read_policy(body: bytes) -> Policy:
    """Read a policy file (section 3.2). Raises StsError."""
    if len(body) > POLICY_MAX:
        raise StsError(f"the policy has {len(body)} bytes, at most {POLICY_MAX} are read")
    fields: dict[str, str] = {}
    hosts: list[str] = []
    for line in body.decode("utf-8", "replace").splitlines():
        name, colon, value = (piece.strip() for piece in line.partition(":"))
        if line.strip() and not colon:
            raise StsError(f"the policy has the line {line[:60]!r}, wanted NAME: VALUE")
        if name == "mx":
            hosts.append(value.rstrip(".").lower())
        elif name:
            fields.setdefault(name, value)
    if fields.get("version") != "STSv1":
        raise StsError(f"the policy's version is {fields.get('version', '')[:20]!r}, wanted STSv1")
    mode, age = fields.get("mode", ""), fields.get("max_age", "")
    if mode not in {"enforce", "testing", "none"}:
        raise StsError(f"the policy's mode is {mode[:20]!r}, wanted enforce, testing or none")
    if not (age.isdecimal() and age.isascii() and len(age) <= 10 and int(age) <= MAX_AGE):
        raise StsError(f"the policy's max_age is {age[:20]!r}, wanted seconds up to {MAX_AGE}")
    if mode != "none" and not hosts:
        raise StsError("the policy names no mx")
    return Policy(mode, tuple(hosts), int(age))


def let_in(policy: Policy, host: str) -> bool:
    """Whether an MX host is one of the policy's (section 4.1)."""
    name = host.rstrip(".").lower()
    return any(name == each or (each.startswith("*.") and name.partition(".")[2] == each[2:]) for each in policy.hosts)


def left_out(policy: Policy, hosts: Iterable[str]) -> list[str]:
    return [host for host in hosts if not let_in(policy, host)]
