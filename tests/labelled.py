"""Replies and what they mean, from tests/replies/heard and published: one reply a line, under the server that gave it."""

from pathlib import Path
from typing import NamedTuple

from policies.classify import Said
from policies.verdict import Verdict

HEARD = Path(__file__).parent / "replies" / "heard"
PUBLISHED = HEARD.parent / "published"
"""Labelled by hand before any rule was tried on them; a few are known to be read otherwise."""


class Labelled(NamedTuple):
    """A reply with the label that a person gave it."""

    place: str
    """File and line."""
    provider: str
    """"" where any will do."""
    host: str
    command: str
    """"" for what Postfix itself finds."""
    text: str
    label: tuple[str, str, str, str]
    """Detail, scope, bounce, reaction."""
    identity: str
    """"ip:192.0.2.7"; "" where none is asked for."""
    blocklists: tuple[str, ...]

    def logged(self, text: str = "") -> str:
        """As Postfix logs it, or another text said in its place."""
        if not self.command:
            return text or self.text
        peer = f"host {self.host or 'mx.example.net'}[198.51.100.25]"
        if self.command == "greeting":
            return f"{peer} refused to talk to me: {text or self.text}"
        return f"{peer} said: {text or self.text} (in reply to {self.command} command)"

    def said(self) -> Said:
        return Said(self.logged(), self.host)


def labels(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.detail, verdict.scope, verdict.bounce, verdict.reaction


def identity(verdict: Verdict) -> str:
    return f"{verdict.identity.type}:{verdict.identity.value}" if verdict.identity else ""


def read(path: Path) -> list[Labelled]:
    rows, provider, host = [], "", ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            provider, host = (part.replace("-", "") if part == "-" else part for part in line.strip("[]").split())
            continue
        label, command, text = line.split(" | ", 2)
        detail, scope, bounce, reaction, *more = label.split()
        lists = [word.removeprefix("lists=").split(",") for word in more if word.startswith("lists=")]
        rows.append(
            Labelled(
                f"{path.stem}:{number}",
                provider,
                host,
                "" if command == "-" else command,
                text,
                (detail, scope, bounce, reaction),
                next((word for word in more if not word.startswith("lists=")), ""),
                tuple(lists[0]) if lists else (),
            )
        )
    return rows


ROWS = [row for path in sorted(HEARD.glob("*.txt")) for row in read(path)]
REPLIES = [row for row in ROWS if row.command]
PUBLISHED_ROWS = [row for path in sorted(PUBLISHED.glob("*.txt")) for row in read(path)]
PUBLISHED_REPLIES = [row for row in PUBLISHED_ROWS if row.command]
MISREAD_ROWS = read(PUBLISHED.parent / "misread.txt")
"""Published too, and labelled as early; each is known to be read otherwise."""
