"""SMTP replies (RFC 5321 section 4.2) with enhanced status codes (RFC 3463), as Postfix logs them."""

from typing import NamedTuple


class Reply(NamedTuple):
    """What a remote server said."""

    code: str
    """Three digits (RFC 5321), as a string; never empty."""
    enhanced: str
    """"5.7.28" (RFC 3463), "" where the server gave none."""
    text: str
    """Folded: one line, the repeated codes of a multi-line reply taken out."""
    host: str
    address: str
    """The remote server as Postfix names it; "" where unknown."""
    command: str
    """As logged: "RCPT TO", "end of DATA command" gives "end of DATA"; "greeting" for a refusal to talk."""
