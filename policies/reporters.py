"""Whose report mail is believed: anybody may send us a report, and a forged one would throttle or clear somebody.

Knows the domains that providers send reports from, and which of them also give mailboxes to the public, where the
domain alone proves nothing.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from parsers.address import domain_of
from parsers.reports.authentication import Passed


class Reporter(NamedTuple):
    domain: str
    provider: str
    """Id as in the rules for replies; the domain where it is none of them."""
    address: str = ""
    """The one sender in this domain that is believed, where others may have mailboxes in it."""


KNOWN: Final = (
    Reporter("google.com", "google"),
    Reporter("arf.mail.yahoo.com", "yahoo"),
    Reporter("yahooinc.com", "yahoo"),
    Reporter("dmarc.yahoo.com", "yahoo"),
    Reporter("enterprise.protection.outlook.com", "microsoft-365"),
    Reporter("microsoft.com", "microsoft"),
    Reporter("hotmail.com", "microsoft", "staff@hotmail.com"),
    Reporter("corp.mail.ru", "mail-ru"),
)
"""A site adds its own; subdomains of these count with them."""


class Standing(NamedTuple):
    """Who a report is from."""

    trusted: bool
    domain: str
    """That was proved; "" where none was."""
    provider: str
    """"" where it is not trusted."""


NOBODY: Final = Standing(trusted=False, domain="", provider="")


def judge(proofs: Iterable[Passed], sender: str, known: Iterable[Reporter]) -> Standing:
    """Tell whether a known reporter sent it; `sender` is the From address, "" where there is not exactly one."""
    proofs = tuple(proofs)
    for reporter in known:
        for proof in proofs:
            if _proves(proof, reporter, sender):
                return Standing(trusted=True, domain=proof.domain, provider=reporter.provider)
    return Standing(trusted=False, domain=proofs[0].domain, provider="") if proofs else NOBODY


def _proves(proof: Passed, reporter: Reporter, sender: str) -> bool:
    if proof.domain != reporter.domain and not proof.domain.endswith(f".{reporter.domain}"):
        return False
    if not reporter.address:
        return True
    # A signature covers the From field; SPF only the envelope, so that there the envelope must name the reporter.
    return proof.address == reporter.address if proof.method == "spf" else sender == reporter.address


def judge_bounce(proofs: Iterable[Passed], recipient: str, organizational: Callable[[str], str]) -> bool:
    """Tell whether a non-delivery report comes from the recipient's own side."""
    wanted = organizational(domain_of(recipient))
    return bool(wanted) and any(organizational(proof.domain) == wanted for proof in proofs)
