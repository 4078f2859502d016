"""A test mail: what it looks like, and how it is handed to our own Postfix, on a chosen way or as all other mail.

Knows that a transport is chosen by the envelope sender, which `sidecar postfix` writes a map for.
"""

import email
import email.policy
import secrets
import smtplib
import subprocess
import time
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

from parsers.seed_mailbox import HEADER
from policies.placement import Place, SeedMail
from sidecar.config import Config, ConfigError, SeedConfig
from sidecar.wiring_plan import sender_on

SUBMIT_SECONDS = 15.0
_REPLACED = ("To", "Cc", "Bcc", "Date", "Message-ID", "Return-Path", HEADER)


def begin(seeds: Iterable[SeedConfig], transport: str, *, now: float) -> list[SeedMail]:
    """Make a mail for each seed."""
    return [SeedMail(secrets.token_hex(16), seed.address, seed.provider, transport, now) for seed in seeds]


def template(config: Config) -> EmailMessage:
    """Give the message that is sent, without what differs from mail to mail. Raises ConfigError."""
    if not config.seedtest.message:
        message = EmailMessage()
        message["Subject"] = "Inbox placement test"
        message.set_content("This message tests where mail from here lands. Nobody has to read it.\n")
        return message
    path = Path(config.seedtest.message)
    try:
        read = email.message_from_bytes(path.read_bytes(), policy=email.policy.SMTP.clone(max_line_length=None))
    except OSError as error:
        raise ConfigError(f"seedtest.message: {path}: cannot be read: {error.strerror}") from error
    if not read.keys():
        raise ConfigError(f"seedtest.message: {path}: has no header; wanted a whole message, as it would be sent")
    assert isinstance(read, EmailMessage)
    return read


def compose(message: EmailMessage, mail: SeedMail, *, sender: str) -> bytes:
    """Give the message to one seed, with a tag of its own."""
    for name in _REPLACED:
        del message[name]
    if "From" not in message:
        message["From"] = sender
    message["To"] = mail.address
    message["Date"] = formatdate(mail.sent_at)
    message["Message-ID"] = f"<{mail.tag}.seed@{sender.rpartition('@')[2]}>"
    message[HEADER] = mail.tag
    return message.as_bytes()


def submit(config: Config, mail: SeedMail, data: bytes) -> SeedMail:
    """Hand it to our Postfix. Blocks for at most some seconds; what is not taken is UNSENT, never an exception."""
    sender = sender_on(config.seedtest.sender, mail.transport)
    try:
        # A chosen transport is for sendmail alone: a route's FILTER, which smtpd is answered, would go over it.
        if mail.transport or not config.seedtest.smtp:
            _by_sendmail(config.seedtest.sendmail, sender, mail.address, data)
        else:
            _by_smtp(config.seedtest.smtp, sender, mail.address, data)
    except (OSError, smtplib.SMTPException, subprocess.SubprocessError) as error:
        return mail._replace(place=Place.UNSENT, why=f"our Postfix did not take it: {error}"[:300])
    return mail


def _by_smtp(where: str, sender: str, recipient: str, data: bytes) -> None:
    host, _, port = where.rpartition(":")
    with smtplib.SMTP(host.strip("[]"), int(port), timeout=SUBMIT_SECONDS) as session:
        session.sendmail(sender, [recipient], data)


def _by_sendmail(program: str, sender: str, recipient: str, data: bytes) -> None:
    command = [program, "-i", "-f", sender, "--", recipient]
    text = data.replace(b"\r\n", b"\n")
    done = subprocess.run(command, input=text, capture_output=True, timeout=SUBMIT_SECONDS, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[:200]
        raise OSError(f"{program} ends with {done.returncode}: {said}")


def submit_all(config: Config, mails: Sequence[SeedMail]) -> list[SeedMail]:
    """Hand all of them over, one after the other. Raises ConfigError."""
    message = template(config)
    sent = []
    for mail in mails:
        at = mail._replace(sent_at=time.time())
        sent.append(submit(config, at, compose(message, at, sender=config.seedtest.sender)))
    return sent
