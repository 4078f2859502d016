"""Two headers as cleanup logs them: cut at 200 bytes, folds shown as "?"."""

from parsers.address import domain_of


def signature_domain(value: str) -> str:
    """Read d= of a DKIM-Signature (RFC 6376 section 3.5), "" where the log does not show it."""
    for tag in value.replace("?", " ").split(";"):
        name, equals, content = tag.partition("=")
        if equals and name.strip() == "d":
            return content.strip().lower()
    return ""


def from_domain(value: str) -> str:
    """Read the domain of a From header (RFC 5322 section 3.6.2), of the last address in it."""
    address = value.rpartition("<")[2].partition(">")[0] if "<" in value else value
    return domain_of(address.strip())
