"""SMTP replies (RFC 5321 section 4.2) with enhanced status codes (RFC 3463), as Postfix logs them.

Postfix joins the lines of a multi-line reply with spaces and each line keeps its code, in the middle of sentences;
here they are folded, once, so that nobody who reads a reply later has to know.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple


class Reply(NamedTuple):
    """What a remote server said."""

    code: str
    """Three digits (RFC 5321), as a string; never empty."""
    enhanced: str
    """"5.7.28" (RFC 3463), "" where the server gave none."""
    text: str
    """What follows code and enhanced code, folded: one line, the repeated codes of a multi-line reply taken out."""
    host: str
    address: str
    """The remote server as Postfix names it; "" where unknown."""
    command: str
    """As logged: "RCPT TO", "end of DATA command" gives "end of DATA"; "greeting" for a refusal to talk."""


_LINE_END: Final = re.compile(r"\s*[\r\n]+\s*")
_BEFORE_REPLY: Final = ("said: ", "talk to me: ", "start TLS: ")
_STATUS: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?=[ :;,]|$)", re.ASCII)
_CODES: Final = frozenset(str(code) for code in range(200, 600))


def fold(text: str) -> str:
    """A reply, or a reason with a reply in it, on one line: whitespace runs single, repeated codes taken out.

    A multi-line reply is one whose first line reads `NNN-`; in all others a code inside the text is text. The code of
    the first line stays, with a blank after it: "421-4.7.28 unusual 421 4.7.28 rate" gives "421 4.7.28 unusual rate".
    """
    if "\n" in text or "\r" in text:
        text = _LINE_END.sub(" ", text.strip())
    text = text.replace("\t", " ")
    while "  " in text:
        text = text.replace("  ", " ")
    start = _reply_start(text)
    if text[start + 3 : start + 4] == "-" and text[start : start + 3] in _CODES:
        text = text[:start] + _without_codes(text[start:])
        while "  " in text:  # where a line held nothing but its code
            text = text.replace("  ", " ")
    return text


def _reply_start(text: str) -> int:
    """Where the reply begins in Postfix's reason; a bare reply begins at once."""
    if text[:1].isdecimal():
        return 0
    for words in _BEFORE_REPLY:
        if (found := text.find(words)) >= 0:
            return found + len(words)
    return 0


def _without_codes(reply: str) -> str:
    """A multi-line reply whose lines are joined by blanks, with the first line's code alone."""
    code = reply[:3]
    # The last line says `NNN `, and only the first such after the last `NNN-` is that line's code.
    last = max(reply.rfind(f" {code}-"), 0) + 4
    end = reply.find(f" {code} ", last)
    if end < 0 and reply.endswith(f" {code}"):
        end = len(reply) - 4
    if end >= 0 and not _STATUS.match(reply, end + 5):
        reply = reply[:end] + reply[end + 4 :]
    if first := _STATUS.match(reply, 4):  # the other lines repeat it, nearly always
        reply = reply.replace(f" {code}-{first[0]} ", " ").replace(f" {code} {first[0]} ", " ")
    rest = reply[4:]
    if f" {code}" in rest:
        rest = _with_status(code).sub("", rest).replace(f" {code}-", " ")
    return f"{code} {rest}".rstrip(" ")


@lru_cache(maxsize=512)
def _with_status(code: str) -> re.Pattern[str]:
    return re.compile(rf" {code}[- ][245]\.\d{{1,3}}\.\d{{1,3}}(?=[ :;,]|$)", re.ASCII)


_BOTH_CODES: Final = {
    f"{code} {code[0]}.{subject}.{detail} ": (code, f"{code[0]}.{subject}.{detail}")
    for code in ("250", "251", "252", "421", "450", "451", "452", "550", "551", "552", "553", "554")
    for subject in range(8)
    for detail in range(10)
}
"""How nearly every reply of one line begins; the rest is read step by step."""
_PEER: Final = r"([^\[\s]*+)\[([^\]]*+)\](?::\d{1,5})?"
_SAID: Final = re.compile(
    rf"(?:TLS is required, but )?host {_PEER} (said|refused to talk to me|refused to start TLS): ", re.ASCII
)
_SASL_SAID: Final = re.compile(rf"SASL (?:\[CACHED\] )?authentication failed; server {_PEER} said: ", re.ASCII)
_COMMANDS: Final = {"refused to talk to me": "greeting", "refused to start TLS": "STARTTLS"}
_IN_REPLY_TO: Final = " (in reply to "
_SUSPENDED: Final = "delivery temporarily suspended: "


def read_reply(reason: str) -> Reply | None:
    """The remote server's reply in Postfix's parenthesised reason, or in a bare reply, also with real line ends.

    None where Postfix itself speaks (connect to, lost connection, DNS, TLS, local delivery) and where what the server
    said does not begin with a code. Source: smtp_trouble.c, smtp_proto.c, smtp_sasl_glue.c, error(8).
    """
    if (both := _BOTH_CODES.get(reason[:10])) and "\n" not in reason and "\r" not in reason and "\t" not in reason:
        text = reason[10:]
        while "  " in text:
            text = text.replace("  ", " ")
        return _make(Reply, (*both, text.strip(" "), "", "", ""))
    host = address = command = ""
    text = reason
    if text[:3] not in _CODES:
        text = reason.strip()
        while text.startswith(_SUSPENDED):
            text = text[len(_SUSPENDED) :]
        if said := _SAID.match(text):
            host, address, how = said.groups()
            text, command = text[said.end() :], _COMMANDS.get(how, "")
            if not command:
                text, command = _asked(text)
        elif said := _SASL_SAID.match(text):
            host, address = said.groups()
            text, command = text[said.end() :], "AUTH"
    code, after = text[:3], text[3:4]
    if code not in _CODES or after not in " -\t\r\n":
        return None
    if after == "-" or "\n" in text or "\r" in text or "\t" in text:
        text = fold(text)
    while "  " in text:
        text = text.replace("  ", " ")
    if text[5:6] == "." and text[9:10] == " " and (enhanced := _short_status(text[4:9])):
        return _make(Reply, (code, enhanced, text[10:].strip(" "), host, address, command))
    words = text[4:]
    enhanced = ""
    if status := _STATUS.match(words, words[:1] == "#"):  # IronPort puts a # before it
        enhanced, words = status[0], words[status.end() :].lstrip(" :;,")
    return _make(Reply, (code, enhanced, words.strip(" "), host, address, command))


def _asked(text: str) -> tuple[str, str]:
    """Take `(in reply to X command)` off the end; a text that was cut may have lost a part of it."""
    start = text.rfind(_IN_REPLY_TO)
    command = text[start + len(_IN_REPLY_TO) :]
    if start < 0 or "(" in command or ")" in command[:-1]:
        return text, ""
    return text[:start], command[:-1].removesuffix(" command") if command[-1:] == ")" else ""


_make: Final = tuple.__new__


@lru_cache(maxsize=1024)
def _short_status(text: str) -> str:
    """The same, or "" for five characters that are no enhanced code."""
    return text if _STATUS.fullmatch(text) else ""
