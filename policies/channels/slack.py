"""Slack: an incoming webhook, which posts and no more, or a bot's token, which can keep an incident in one thread.

Knows Block Kit's limits, that & < > are the only characters to escape (`<!channel>` would call everybody), and
that Slack answers 200 to what it did not take.
"""

import json
from typing import Any, Final

from parsers.feeds.asking import HttpAnswer, HttpAsk
from parsers.feeds.dnsbl import Severity
from policies.channels.receipt import Receipt, Result, by_status, said
from policies.note import Note, NoteKind, headline, paragraphs

API: Final = "https://slack.com/api"
HEADER_MAX: Final = 150
SECTION_MAX: Final = 3000
TEXT_MAX: Final = 4000
BLOCKS_MAX: Final = 50
_COLOURS: Final = {Severity.CRITICAL: ":red_circle:", Severity.ERROR: ":large_orange_circle:",
                   Severity.WARNING: ":large_yellow_circle:", Severity.INFO: ":white_circle:"}  # fmt: skip
_MAY_PASS: Final = frozenset({"ratelimited", "rate_limited", "internal_error", "service_unavailable", "request_timeout",
                              "team_added_to_org", "rollup_error"})  # fmt: skip
"""Errors of chat.postMessage, and bodies of a webhook, that another try may not meet."""


def webhook(url: str, note: Note) -> HttpAsk:
    """Post to an incoming webhook, whose URL is the secret."""
    body = {"text": _cut(headline(note), TEXT_MAX), "blocks": blocks(note)}
    return HttpAsk(url, "POST", _JSON, json.dumps(body).encode(), (url,))


def message(token: str, channel: str, note: Note, *, thread: str = "", api: str = API) -> HttpAsk:
    """Post as a bot (chat.postMessage); into the thread of the incident where there is one.

    What is news to all who only read the channel is shown there too.
    """
    body: dict[str, Any] = {"channel": channel, "text": _cut(headline(note), TEXT_MAX), "blocks": blocks(note)}
    if thread:
        body |= {"thread_ts": thread, "reply_broadcast": not note.is_open}
    headers = (("Content-Type", "application/json; charset=utf-8"), ("Authorization", f"Bearer {token}"))
    return HttpAsk(f"{api}/chat.postMessage", "POST", headers, json.dumps(body).encode(), (token,))


def read_webhook(answer: HttpAnswer) -> Receipt:
    text = said(answer)
    if answer.status == 200 and text != "ok":
        return Receipt(Result.BROKEN, f"answers 200, but not ok: {text}")
    if answer.status == 200 or text not in _MAY_PASS:
        return by_status(answer)
    return Receipt(Result.LATER, f"answers {answer.status} {text}")


def read_message(answer: HttpAnswer) -> Receipt:
    if answer.status != 200:
        return by_status(answer)
    try:
        told = json.loads(answer.body)
        if told["ok"] is True:
            return Receipt(Result.SENT, thread=str(told.get("ts", "")))
        error = str(told.get("error", "an error without a name"))
    except (ValueError, TypeError, KeyError):
        return Receipt(Result.BROKEN, f"answers 200 with what is not JSON of Slack: {said(answer)}")
    return Receipt(Result.LATER if error in _MAY_PASS else Result.BROKEN, f"answers {error}")


def blocks(note: Note) -> list[dict[str, Any]]:
    """Block Kit of a note, within its limits whatever the note has in it."""
    made: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(headline(note), HEADER_MAX), "emoji": False}}
    ]
    for heading, lines in paragraphs(note):
        text = "\n".join(_escaped(line) for line in lines)
        if heading == "Evidence":
            text = f"```{_whole(text.replace('`', chr(39)), SECTION_MAX - 40)}```"
        made.append(_section(f"*{heading}*\n{text}"))
    if note.link.startswith(("http://", "https://")):
        button = {"type": "button", "text": {"type": "plain_text", "text": "Open"}, "url": note.link[:3000]}
        made.append({"type": "actions", "elements": [button]})
    incident = f"incident {note.incident}, " if note.kind is not NoteKind.DIGEST else ""
    footer = f"{_COLOURS[note.severity]} {incident}{_escaped(note.category)}, {_escaped(note.dedup_key)}"
    made.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _whole(footer, 2000)}]})
    return made[: BLOCKS_MAX - 1] + made[-1:] if len(made) > BLOCKS_MAX else made


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _whole(text, SECTION_MAX)}}


_JSON: Final = (("Content-Type", "application/json; charset=utf-8"),)
_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def _escaped(text: str) -> str:
    return _printable(text).translate(_ESCAPES)


def _printable(text: str) -> str:
    """One line; lone surrogates, which are no UTF-8, written out."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def _cut(text: str, most: int) -> str:
    return _whole(_escaped(text), most)


def _whole(text: str, most: int) -> str:
    """At most so many characters, and no half of an escape at the end."""
    if len(text) <= most:
        return text
    cut = text[: most - 3]
    start = cut.rfind("&", len(cut) - 5)
    if start >= 0 and ";" not in cut[start:]:
        cut = cut[:start]
    return cut + "..."
