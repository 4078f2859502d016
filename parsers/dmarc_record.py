"""DMARC records (RFC 7489 section 6.3, RFC 9989): what a domain asks receivers to do, and where reports go.

Knows which faults make a record none, and which ones only a tag.
"""

from typing import NamedTuple

from parsers.tag_list import TagError, begins_with_version, read_tags

POLICIES = ("none", "quarantine", "reject")


class DmarcError(Exception):
    """A record that receivers do not take for one: says why."""


class DmarcRecord(NamedTuple):
    policy: str
    """none, quarantine or reject."""
    subdomain_policy: str
    aggregate: tuple[str, ...]
    """Addresses that aggregate reports are mailed to."""
    strict_dkim: bool
    """adkim=s: the signing domain must be the very domain of the header From."""
    strict_spf: bool
    remarks: tuple[str, ...]
    """What is wrong without making the record invalid."""


def is_dmarc(text: str) -> bool:
    return begins_with_version(text, "DMARC1")


def read_record(text: str) -> DmarcRecord:
    """Raises DmarcError."""
    if not is_dmarc(text):
        raise DmarcError(f"begins with {text[:12]!r}, wanted 'v=DMARC1;'")
    try:
        tags = read_tags(text)
    except TagError as error:
        raise DmarcError(str(error)) from error
    remarks: list[str] = []
    aggregate = tuple(_mailboxes(tags.get("rua", ""), remarks))
    if not tags.get("rua"):
        remarks.append("rua= is missing: nobody reports how our mail fares; wanted rua=mailto:ADDRESS")
    policy = tags.get("p", "").lower()
    if policy not in POLICIES:
        said = f"p={tags['p'][:20]}" if "p" in tags else "p= is missing"
        if not aggregate:  # section 6.6.3: with a place for reports it is taken for p=none
            raise DmarcError(f"{said}: wanted p=none, p=quarantine or p=reject")
        remarks.append(f"{said}: taken for p=none")
        policy = "none"
    subdomains = tags.get("sp", policy).lower()
    if subdomains not in POLICIES:
        remarks.append(f"sp={subdomains[:20]}: wanted none, quarantine or reject")
        subdomains = policy
    wrong = [tag for tag in ("adkim", "aspf") if tags.get(tag, "r").lower() not in {"r", "s"}]
    remarks += [f"{tag}={tags[tag][:20]}: wanted r or s" for tag in wrong]
    share = tags.get("pct", "100")
    if not (share.isdecimal() and len(share) <= 3 and int(share) <= 100):
        remarks.append(f"pct={share[:20]}: wanted 0 to 100")
    strict_dkim, strict_spf = (tags.get(tag, "r").lower() == "s" for tag in ("adkim", "aspf"))
    return DmarcRecord(policy, subdomains, aggregate, strict_dkim, strict_spf, tuple(remarks))


def _mailboxes(value: str, remarks: list[str]) -> list[str]:
    """Addresses of a list of URIs; each may end in a size, as !10m."""
    found = []
    for part in filter(None, (piece.strip() for piece in value.split(","))):
        scheme, colon, rest = part.partition(":")
        address = rest.partition("!")[0].partition("?")[0]
        local, at, domain = address.rpartition("@")
        if colon and scheme.lower() == "mailto" and local and at and "." in domain:
            found.append(address)
        else:
            remarks.append(f"rua: found {part[:60]!r}, wanted mailto:ADDRESS")
    return found
