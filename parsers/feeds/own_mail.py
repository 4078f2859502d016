"""What our own mail says of itself, judged as receivers do: DMARC alignment, and a way out in one click.

Knows what aligned means (RFC 7489 section 3.1) and which headers a mailing needs (RFC 8058); whose mail it is, and how
much of it there must be, is for those who ask.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from parsers import dmarc_record
from parsers.dmarc_record import DmarcError, DmarcRecord
from parsers.feeds.asking import Asked
from parsers.feeds.own_dns import look_up, unanswered
from parsers.observation import Observation, Outcome

ALIGNMENT: Final = "requirement.DMARC_ALIGNMENT"
ONE_CLICK: Final = "requirement.ONE_CLICK_UNSUBSCRIBE"
LEAST: Final = 20
"""Messages, or mailings, of which one must have seen as many to judge."""
SHARE: Final = 0.98
"""Of them that must be as wanted: now and then a bounce or a person's own mail goes another way."""


class Sent(NamedTuple):
    """Mail of one header From that was sent and signed alike."""

    sender_domain: str
    signed_by: tuple[str, ...]
    messages: int


class Presented(NamedTuple):
    """What was seen lately of the mail in the name of one domain."""

    domain: str
    """Of the header From."""
    sent: tuple[Sent, ...]
    mailings: int = 0
    """To a list, by their headers."""
    one_click: int = 0
    """Of them, with an https URI in List-Unsubscribe, and List-Unsubscribe-Post."""
    signatures_shown: bool = True
    """Whether the log shows who signs; else mail without a signature may well have one."""


def judge(feed: str, presented: Presented, organizational: Callable[[str], str]) -> Asked[list[Observation]]:
    """Tell both requirements of one domain."""
    aligned = yield from _alignment(feed, presented, organizational)
    return [aligned, _one_click(feed, presented)]


def _one_click(feed: str, presented: Presented) -> Observation:
    mailings = presented.mailings
    if mailings < LEAST:
        text = f"{mailings} mailings with a known way out in the last day, wanted {LEAST}"
        return Observation(feed, presented.domain, ONE_CLICK, Outcome.NO_DATA, text=text)
    share = presented.one_click / mailings
    wanted = "List-Unsubscribe: <https://...> and List-Unsubscribe-Post: List-Unsubscribe=One-Click"
    text = "" if share >= SHARE else f"{share:.0%} of {mailings} mailings, wanted in each {wanted}"
    return Observation(feed, presented.domain, ONE_CLICK, Outcome.OK, float(share >= SHARE), text)


def _alignment(feed: str, presented: Presented, organizational: Callable[[str], str]) -> Asked[Observation]:
    domain = presented.domain
    messages = sum(each.messages for each in presented.sent)
    if messages < LEAST:
        text = f"{messages} messages in the last day, wanted {LEAST}"
        return Observation(feed, domain, ALIGNMENT, Outcome.NO_DATA, text=text)
    record, why = yield from _record(domain, organizational)
    if why:
        return Observation(feed, domain, ALIGNMENT, Outcome.UNKNOWN, text=why)
    strict = record or _RELAXED
    other = [each for each in presented.sent if not aligned(domain, each, strict, organizational)]
    if unsure := [each for each in other if not each.signed_by and not presented.signatures_shown]:
        number = sum(each.messages for each in unsure)
        text = f"the log does not show who signs, and {number} of {messages} messages are not aligned by SPF"
        return Observation(feed, domain, ALIGNMENT, Outcome.NO_DATA, text=text)
    share = 1.0 - sum(each.messages for each in other) / messages
    text = "" if share >= SHARE else _misaligned(domain, other, strict, share, messages)
    return Observation(feed, domain, ALIGNMENT, Outcome.OK, float(share >= SHARE), text)


def aligned(domain: str, sent: Sent, record: DmarcRecord, organizational: Callable[[str], str]) -> bool:
    """Whether the envelope sender or a signature is of the header From's domain, as its record wants it."""

    def alike(other: str, *, strict: bool) -> bool:
        return other == domain or (not strict and organizational(other) == organizational(domain))

    by_spf = alike(sent.sender_domain, strict=record.strict_spf)
    return by_spf or any(alike(signer, strict=record.strict_dkim) for signer in sent.signed_by)


def _record(domain: str, organizational: Callable[[str], str]) -> Asked[tuple[DmarcRecord | None, str]]:
    """Look up the record that holds for a domain, None where there is no valid one; and why that is not known."""
    for owner in dict.fromkeys((domain, organizational(domain))):
        answer = yield from look_up(f"_dmarc.{owner}", "TXT", domain)
        if why := unanswered(answer, f"_dmarc.{owner}"):
            return None, why
        records = [each for each in answer.records if dmarc_record.is_dmarc(each)]
        if records:
            return _read(records), ""
    return None, ""


def _read(records: Sequence[str]) -> DmarcRecord | None:
    if len(records) > 1:  # none of them counts
        return None
    try:
        return dmarc_record.read_record(records[0])
    except DmarcError:
        return None


def _misaligned(domain: str, other: Iterable[Sent], record: DmarcRecord, share: float, messages: int) -> str:
    worst = max(other, key=lambda each: each.messages)
    signed = f"signed by {', '.join(worst.signed_by[:3])}" if worst.signed_by else "not signed"
    exactly = " itself" if record.strict_dkim and record.strict_spf else " or below its organizational domain"
    return (
        f"{share:.0%} of {messages} messages; {worst.messages} are sent by {worst.sender_domain} and {signed}:"
        f" wanted one of the two to be {domain}{exactly}"
    )


_RELAXED: Final = DmarcRecord("none", "none", (), strict_dkim=False, strict_spf=False, remarks=())
