"""What the simulated providers say when a limit fires, in the words their documentation and real logs show.

Keyed by provider name and by whom the limit counts; a scenario's own `reply` goes before them.
"""

from sidecar.lab.scenario import By, Limit

_GOOGLE = """\
421-4.7.28 Gmail has detected an unusual rate of mail originating from your {what}
421-4.7.28 [{{identity}}      35]. To protect our users from spam, mail sent
421-4.7.28 from your {whose} has been temporarily rate limited. For more
421-4.7.28 information, go to
421-4.7.28  https://support.google.com/mail/?p=UnsolicitedRateLimitError to
421 4.7.28 review our Bulk Email Senders Guidelines. a640c23a62f3a-ab4c1f2 - gsmtp"""

REPLIES: dict[tuple[str, By], str] = {
    ("google", By.DKIM): _GOOGLE.format(what="DKIM domain", whose="domain"),
    ("google", By.SPF): _GOOGLE.format(what="SPF domain", whose="domain"),
    ("google", By.ENVELOPE): _GOOGLE.format(what="SPF domain", whose="domain"),
    ("google", By.IP): _GOOGLE.format(what="IP address", whose="IP address"),
    ("google", By.RECIPIENT): """\
450-4.2.1 The user you are trying to contact is receiving mail at a rate that
450-4.2.1 prevents additional messages from being delivered. Please resend your
450-4.2.1 message at a later time. If the user is able to receive mail at that
450-4.2.1 time, your message will be delivered. For more information, go to
450 4.2.1  https://support.google.com/mail/?p=ReceivingRate a640c23a62f3a-ab4c1f2 - gsmtp""",
    (
        "comcast",
        By.DKIM,
    ): "451 4.2.0 Throttled - try again later. Please see https://postmaster.comcast.net/smtp-error-codes.php#RL000010",
    (
        "comcast",
        By.SPF,
    ): "451 4.2.0 Throttled - try again later. Please see https://postmaster.comcast.net/smtp-error-codes.php#RL000010",
    (
        "comcast",
        By.ENVELOPE,
    ): "451 4.2.0 Throttled - try again later. Please see https://postmaster.comcast.net/smtp-error-codes.php#RL000010",
    (
        "comcast",
        By.IP,
    ): "421 4.2.0 Throttled - try again later. Please see https://postmaster.comcast.net/smtp-error-codes.php#RL000001",
    (
        "yahoo",
        By.IP,
    ): "421 4.7.0 [TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
    ("yahoo", By.RECIPIENT): "450 4.2.1 {recipient} is receiving mail too quickly; please slow down",
    (
        "microsoft",
        By.IP,
    ): "451 4.7.650 The mail server [{ip}] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://postmaster.live.com (S775)",
    ("microsoft-365", By.IP): "451 4.7.500 Server busy. Please try again later from [{ip}]. (AS761)",
    ("apple", By.IP): "421 4.7.1 [HCM1] Message from {ip} deferred, see https://support.apple.com/en-us/HT204137",
    (
        "apple",
        By.RECIPIENT,
    ): "421 4.7.1 Messages to {recipient} deferred due to excessive volume. Try again later - https://support.apple.com/en-us/HT204137",
}

_ANY: dict[By, str] = {
    By.DKIM: "451 4.7.1 Too many messages signed by {identity}, try again later",
    By.SPF: "451 4.7.1 Too many messages from domain {identity}, try again later",
    By.ENVELOPE: "451 4.7.1 Too many messages from domain {identity}, try again later",
    By.IP: "421 4.7.0 Too many messages from {ip}, try again later",
    By.RECIPIENT: "452 4.2.2 The email account that you tried to reach is over quota: {recipient}",
}


def reply_to(provider: str, limit: Limit) -> str:
    """The reply of a fired limit, its fields not yet filled in."""
    return limit.reply or REPLIES.get((provider, limit.by)) or _ANY[limit.by]


def filled(reply: str, *, identity: str, ip: str, recipient: str, sender: str) -> bytes:
    """The reply as it goes over the wire; a plain text of several lines becomes a multi-line reply (RFC 5321 4.2.1)."""
    for name, value in (("identity", identity), ("ip", ip), ("recipient", recipient), ("sender", sender)):
        reply = reply.replace("{" + name + "}", value)
    lines = reply.replace("\r\n", "\n").strip().split("\n")
    code = lines[0][:3]
    lines = [line if line.startswith(code) else f"{code} {line}" for line in lines]
    last = len(lines) - 1
    return b"".join(f"{line[:3]}{'-' if i < last else ' '}{line[4:]}\r\n".encode() for i, line in enumerate(lines))
