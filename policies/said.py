"""A reply as rules see it: who said it, its codes, and its words without what changes from one reply to the next.

Knows how a logged reason becomes that form. What the words mean stands in the rules.
"""

import re
from typing import Final, NamedTuple

from parsers.smtp import fold, read_reply

LONGEST: Final = 4096
"""Characters of a reason that are looked at; replies are the other side's to choose."""


class Said(NamedTuple):
    """A reply and what is known around it."""

    reason: str
    """The whole parenthesised reason as Postfix logs it, or a bare reply, also with real line ends."""
    host: str = ""
    """Remote host name (relay), "" where unknown."""
    recipient_domain: str = ""
    command: str = ""
    """As in `Reply.command`; "" takes it from the reason."""


class Heard(NamedTuple):
    """What rules are matched against."""

    remote: bool
    """A server's reply; False: Postfix's own finding."""
    suspended: bool
    """Postfix repeats an earlier refusal and made no attempt ("delivery temporarily suspended")."""
    code: str
    """"" where there is none: Postfix's own findings and servers that answer without."""
    enhanced: str
    text: str
    """What follows the codes, normalised."""
    plain: str
    """The same, only folded."""
    words: frozenset[str]
    """The words of `text`."""
    command: str
    host: str
    recipient_domain: str

    @property
    def is_permanent(self) -> bool:
        """By the first digit (RFC 5321 section 4.2.1), of the enhanced code where that is all there is."""
        return (self.code or self.enhanced).startswith("5")


_QUOTES: Final = "'\"`"
_PLAIN: Final = {
    **dict.fromkeys(map(ord, "\u00b4\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"), ""),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014"), "-"),
    0xA0: " ",
}
"""Typographic quotation marks, dashes and the blank that does not break."""
_SEPARATORS: Final = bytes(i if chr(i).isalnum() else 32 for i in range(256))


def normalise(text: str) -> str:
    """Small letters, single blanks, no quotation marks, "mail" for "email", "e-mail" and "message", "mailbox" for "mail-box".

    Rules and replies both pass through here, so a reply keeps its rule when it is re-wrapped, re-quoted or re-cased.
    """
    text = text.lower()
    if not text.isascii():
        text = text.translate(_PLAIN)
    for quote in _QUOTES:
        if quote in text:
            text = text.replace(quote, "")
    return " ".join(one_mail(text).split())


def one_mail(text: str) -> str:
    """The same word for the same thing."""
    if "message" in text:
        text = text.replace("message", "mail")
    elif "mail" not in text:
        return text
    text = text.replace("e-mail", "mail").replace("email", "mail")
    return text.replace("mail-box", "mailbox").replace("mail box", "mailbox") if "box" in text else text


def words(text: str) -> frozenset[str]:
    """The words of a normalised text: what stands between blanks and signs."""
    # By way of bytes, where translating is a table look-up; letters beyond Latin-1 are signs here.
    return frozenset(text.encode("latin-1", "replace").translate(_SEPARATORS).decode("latin-1").split())


_SUSPENDED: Final = "delivery temporarily suspended: "
_IN_REPLY_TO: Final = re.compile(r" ?\(in reply to ([A-Za-z ]{2,40}?)(?: command)?\){1,2}$")
_STATUS_ALONE: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ :-]+|$)", re.ASCII)
_STATUS_INSIDE: Final = re.compile(r"# ?([245]\.\d{1,3}\.\d{1,3})(?![\d.])", re.ASCII)
_UNCODED: Final = re.compile(r"host ([^\s\[\]]{1,255})\[[^\]]{2,60}\](?::\d{1,5})? (?:said|(refused to talk to me)): ")
_PEER: Final = re.compile(r"(?:connect to|with|host|server) ([^\s\[\]]{1,255})\[")
_OURS: Final = frozenset({"AUTH", "STARTTLS"})
"""Replies that stand inside sentences of Postfix about its own login or TLS; there the sentence counts."""


def hear(said: Said) -> Heard:
    """Take a reason apart; never raises."""
    reason = said.reason[:LONGEST].strip()
    if reason.startswith("(") and reason.endswith(")"):
        reason = reason[1:-1]
    suspended = reason.startswith(_SUSPENDED)
    if suspended:
        reason = reason.removeprefix(_SUSPENDED)
    reply = read_reply(reason)
    if reply is None or (reply.command in _OURS and not _UNCODED.match(reason)):
        return _without_code(said, reason, suspended=suspended)
    plain, command = (reply.text, reply.command) if reply.command else _without_command(reply.text)
    return _heard(
        said,
        code=reply.code,
        enhanced=reply.enhanced,
        plain=plain,
        command=command,
        host=reply.host,
        suspended=suspended,
    )


def _without_code(said: Said, reason: str, *, suspended: bool) -> Heard:
    """Read what carries no SMTP code: an enhanced code alone, an uncoded reply, or Postfix's own words."""
    text = fold(reason)
    if status := _STATUS_ALONE.match(text):
        plain, command = _without_command(text[status.end() :])
        return _heard(said, enhanced=status[1], plain=plain, command=command, suspended=suspended)
    if uncoded := _UNCODED.match(text):
        plain, command = _without_command(text[uncoded.end() :])
        command = "greeting" if uncoded[2] else command
        return _heard(said, plain=plain, command=command, host=uncoded[1], suspended=suspended)
    peer = _PEER.search(text)
    return _heard(said, plain=text, host=peer[1] if peer else "", suspended=suspended, remote=False)


def _without_command(text: str) -> tuple[str, str]:
    asked = _IN_REPLY_TO.search(text, max(0, len(text) - 80)) if text.endswith(")") else None
    return (text[: asked.start()], asked[1]) if asked else (text, "")


def _heard(
    said: Said,
    *,
    plain: str,
    suspended: bool,
    code: str = "",
    enhanced: str = "",
    command: str = "",
    host: str = "",
    remote: bool = True,
) -> Heard:
    if not enhanced and "#" in plain and (inside := _STATUS_INSIDE.search(plain)):
        enhanced = inside[1]
    text = normalise(plain)
    return Heard(
        remote,
        suspended,
        code,
        enhanced,
        text,
        plain,
        words(text),
        said.command or command,
        (said.host or host).partition("[")[0].rstrip(".").lower(),
        said.recipient_domain.rstrip(".").lower(),
    )
