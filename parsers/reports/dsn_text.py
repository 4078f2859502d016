"""Non-delivery reports in the forms of qmail, Exim and Exchange, which say in sentences what RFC 3464 has fields for.

Knows what each program writes for certain; where a text does not say which address failed, nothing is made of it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from parsers.reports.mime import Part, read_header
from parsers.reports.original import NO_HEADER


class Named(NamedTuple):
    """A recipient that a text names, and what it says about it."""

    recipient: str
    remote: str
    words: str
    """From the SMTP reply on where there is one, on one line."""


class TextBounce(NamedTuple):
    form: str
    server: str
    recipients: tuple[Named, ...]
    original: Part
    """Header of the message, where its copy stands in the text."""


_ADDRESS: Final = r"[^\s<>@,;:'\"]{1,64}@[^\s<>@,;:'\"]{1,255}"
_REPLY: Final = re.compile(r"(?<![\d.#])[245]\d\d[ -](?=\S)")

_STATUS: Final = re.compile(r"\(#([245]\.\d{1,3}\.\d{1,3})\)")

_QMAIL: Final = re.compile(r"\A\s*Hi\. This is the (?:qmail-send program at )?(\S{0,255})")
_QMAIL_BREAK: Final = re.compile(r"^--- ", re.MULTILINE)
_QMAIL_NAMED: Final = re.compile(rf"<({_ADDRESS})>:\n(.*)", re.DOTALL)
_QMAIL_HOST: Final = re.compile(r"(?:Connected to |\A)([0-9A-Fa-f.:]{3,45})(?:_| )(?:but|does not)")

_EXIM: Final = "This message was created automatically by mail delivery software"
_EXIM_NAMED: Final = re.compile(rf"^  ({_ADDRESS})\n((?:    .*\n?)*)", re.MULTILINE)
_EXIM_HOST: Final = re.compile(r"\bhost (\S{1,255}) \[")
_COPY: Final = re.compile(r"^-{3,} This is a copy of [^\n]*$", re.MULTILINE)

_EXCHANGE: Final = re.compile(
    r"did not reach (?:some or all of )?the (?:following|intended) recipient|Delivery has failed to these recipients"
)
_EXCHANGE_NAMED: Final = re.compile(
    rf"^[ \t]*'?({_ADDRESS})'?(?:<mailto:[^>\n]{{1,320}}>)?(?: on [^\n]{{1,60}})?[ \t]*$", re.MULTILINE
)
_EXCHANGE_STATUS: Final = re.compile(
    r"<(?P<host>\S{1,255}) #(?P<status>[245]\.\d{1,3}\.\d{1,3})(?: ?smtp; ?)?(?P<words>[^\n]*)>[^>\n]{0,20}$"
    r"|#(?P<reply>[245]\d\d[ -][^\n#]*)",
    re.MULTILINE,
)


def read_text_bounce(mail: Part) -> TextBounce | None:
    """Read a non-delivery report without fields; None where it is none that we know for certain."""
    text = next((part.text for part in mail.walk() if part.media_type == "text/plain" and not part.parts), "")
    return next(filter(None, (read(mail, text) for read in _FORMS.values())), None)


def _qmail(_: Part, text: str) -> TextBounce | None:
    begin = _QMAIL.match(text)
    if begin is None:
        return None
    end = _QMAIL_BREAK.search(text)
    paragraphs = text[: end.start() if end else len(text)].split("\n\n")[1:]
    named = [found for each in paragraphs if (found := _QMAIL_NAMED.match(each.strip()))]
    recipients = tuple(Named(found[1].lower(), _host(_QMAIL_HOST, found[2]), _reply(found[2])) for found in named)
    original = read_header(text[end.end() :].partition("\n\n")[2].encode()) if end else NO_HEADER
    return TextBounce("qmail", begin[1].rstrip(".").lower(), recipients, original) if recipients else None


def _exim(mail: Part, text: str) -> TextBounce | None:
    failed = mail.header("x-failed-recipients").lower().replace(",", " ").split()
    if not failed and _EXIM not in text[:2_000]:
        return None
    end = _COPY.search(text)
    told = text[: end.start() if end else len(text)]
    said = {found[1].lower(): found[2] for found in _EXIM_NAMED.finditer(told)}
    recipients = tuple(
        Named(each, _host(_EXIM_HOST, said.get(each, "")), _reply(said.get(each, ""))) for each in failed or said
    )
    original = read_header(text[end.end() :].strip("\n").encode()) if end else NO_HEADER
    return TextBounce("exim", "", recipients, original) if recipients else None


def _exchange(_: Part, text: str) -> TextBounce | None:
    if _EXCHANGE.search(text[:4_000]) is None:
        return None
    recipients = tuple(_exchange_recipients(text[:20_000]))
    return TextBounce("exchange", "", recipients, NO_HEADER) if recipients else None


def _exchange_recipients(text: str) -> Iterator[Named]:
    named = list(_EXCHANGE_NAMED.finditer(text))
    for found, following in zip(named, (*named[1:], None), strict=False):
        said = _EXCHANGE_STATUS.search(text, found.end(), following.start() if following else len(text))
        if said is None:  # an address on a line, and nothing about it
            continue
        words = said["reply"] or said["words"] or said["status"]
        yield Named(found[1].lower(), (said["host"] or "").lower(), " ".join(words.split()))


def _host(pattern: re.Pattern[str], words: str) -> str:
    found = pattern.search(words)
    return found[1].lower() if found else ""


def _reply(words: str) -> str:
    """From the server's reply on; the whole where the program speaks for itself."""
    line = " ".join(words.split())
    said = _REPLY.search(line)
    status = _STATUS.search(line)
    reply = line[said.start() :] if said else f"{status[1]} {line}" if status else line
    return reply.removesuffix(".").partition(" Giving up on ")[0]


_FORMS: Final[Mapping[str, Callable[[Part, str], TextBounce | None]]] = {
    "qmail": _qmail,
    "exim": _exim,
    "exchange": _exchange,
}
