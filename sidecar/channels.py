"""The table of channels: what each needs, what it is told, and how a note is sent over it.

Knows the difference between a message that was certainly not taken and one of which nobody knows. A new channel is
a row here and a module in policies/channels.
"""

import importlib.util
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from parsers.feeds.asking import HttpAnswer, HttpAsk
from parsers.feeds.dnsbl import Severity
from policies.channels import alertmanager, apprise, mail, pagerduty, slack, webhook
from policies.channels.receipt import Receipt, Result, by_status
from policies.incidents import Incident
from policies.note import MESSAGES, Note, NoteKind
from sidecar.asking import retry_after
from sidecar.config import ChannelConfig, ChannelKind, Config, ConfigError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
_ANSWER_MAX = 65_536


class Delivery(NamedTuple):
    """What belongs to one sending, beside the note."""

    id: str
    """The same for each try of one note over one channel."""
    thread: str = ""
    incidents: tuple[Incident, ...] = ()
    """All that Alertmanager is told, whatever the note is about."""


class Taken(NamedTuple):
    receipt: Receipt
    wait: float = 0.0
    """Seconds for which the other side wants no more."""


class Kind(NamedTuple):
    """What is so of every channel of a kind."""

    needs: Callable[[ChannelConfig], str]
    """What the configuration lacks, "" where nothing."""
    send: Callable[["Channel", Note, Delivery], Taken]
    told: frozenset[NoteKind]
    severities: frozenset[str]
    """Unless configured otherwise."""
    repeatable: bool
    """The same twice is once there: it may be sent again when nobody knows."""
    gap: float
    """Seconds between two messages."""
    repeat_every: float = 0.0
    """Seconds after which it is told again what is open, for it forgets; 0: it does not."""


class Channel(NamedTuple):
    config: ChannelConfig
    host: str
    ca_file: str = ""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def kind(self) -> Kind:
        return KINDS[self.config.kind]

    @property
    def severities(self) -> frozenset[str]:
        return frozenset(self.config.severities) or self.kind.severities

    def wants(self, note: Note) -> bool:
        graded = note.severity in self.severities or note.kind is NoteKind.DIGEST
        return graded and note.kind in self.kind.told

    def send(self, note: Note, delivery: Delivery) -> Taken:
        """Send it; never raises. Blocks for at most some 20 s."""
        try:
            return self.kind.send(self, note, delivery)
        except ConfigError as error:
            return Taken(Receipt(Result.BROKEN, str(error)))


def configured(config: Config) -> list[Channel]:
    """Give the channels in their order. Raises ConfigError."""
    host = config.alerts.host or socket.gethostname()
    found: dict[str, Channel] = {}
    for number, each in enumerate(config.channel):
        key = f"channel[{number}]"
        if each.name in found:
            raise ConfigError(f"{key}.name: {each.name!r} is there twice; wanted a name of its own for each channel")
        if lacking := KINDS[each.kind].needs(each):
            raise ConfigError(f"{key} ({each.name}): {lacking}")
        for severity in each.severities:
            if severity not in set(Severity):
                raise ConfigError(f"{key}.severities: found {severity!r}, wanted of {', '.join(Severity)}")
        found[each.name] = Channel(each, host, config.outside.ca_file)
    return list(found.values())


# How each is sent.


def _slack(channel: Channel, note: Note, delivery: Delivery) -> Taken:
    config = channel.config
    if config.token_file:
        api = config.url or slack.API
        ask = slack.message(secret(config.token_file), config.channel, note, thread=delivery.thread, api=api)
        return _posted(channel, ask, slack.read_message)
    return _posted(channel, slack.webhook(secret(config.url_file), note), slack.read_webhook)


def _pagerduty(channel: Channel, note: Note, _: Delivery) -> Taken:
    key = secret(channel.config.routing_key_file)
    if len(key) != pagerduty.KEY_LENGTH:
        raise ConfigError(f"{channel.config.routing_key_file}: a key of {len(key)} characters, wanted 32")
    ask = pagerduty.event(key, note, host=channel.host, api=channel.config.url or pagerduty.API)
    return _posted(channel, ask, pagerduty.read)


def _alertmanager(channel: Channel, note: Note, delivery: Delivery) -> Taken:
    if note.kind is NoteKind.TEST:
        ask = alertmanager.test(channel.config.url, host=channel.host, now=note.at)
    else:
        ask = alertmanager.post(
            channel.config.url, delivery.incidents, channel.severities, host=channel.host, now=time.time()
        )
    return _posted(channel, ask, by_status)


def _webhook(channel: Channel, note: Note, delivery: Delivery) -> Taken:
    config = channel.config
    key = secret(config.secret_file).encode() if config.secret_file else b""
    url = secret(config.url_file) if config.url_file else config.url
    ask = webhook.request(url, key, note, delivery=delivery.id, host=channel.host, now=time.time())
    return _posted(channel, ask, by_status)


_PASSING = {71, 75}
"""EX_OSERR and EX_TEMPFAIL of sysexits(3), as sendmail(1) says them."""


def _mail(channel: Channel, note: Note, delivery: Delivery) -> Taken:
    config = channel.config
    message = mail.compose(note, to=config.to, sender=config.sender, host=channel.host, delivery=delivery.id)
    command = [config.sendmail, "-i", *(("-f", config.sender) if config.sender else ()), "--", *config.to]
    try:
        done = subprocess.run(command, input=message, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Taken(Receipt(Result.UNSURE, f"{config.sendmail} does not end"))
    except OSError as error:
        return Taken(Receipt(Result.BROKEN, f"{config.sendmail}: {error.strerror}"))
    if done.returncode == 0:
        return Taken(Receipt(Result.SENT))
    why = f"{config.sendmail} ends with {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()[:200]}"
    return Taken(Receipt(Result.LATER if done.returncode in _PASSING else Result.BROKEN, why))


def _apprise(channel: Channel, note: Note, _: Delivery) -> Taken:
    # An extra, and slow to import: only where such a channel speaks.
    import apprise as library  # noqa: PLC0415

    made = apprise.text(note)
    services = []
    for number, url in enumerate(_lines(channel.config.url_file), 1):
        services.append(library.Apprise())
        if not services[-1].add(url):
            raise ConfigError(f"{channel.config.url_file}: URL {number}: no service that Apprise knows")
    receipts: list[Receipt] = []
    for service in services:
        # Its log is the only place where it says why; one at a time, so that each hears its own.
        with _ONE_APPRISE, library.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # type: ignore[no-untyped-call]  # of the library
            taken = service.notify(made.body, made.title, library.NotifyType(made.type), body_format="text")
            receipts.append(apprise.read(bool(taken), said.getvalue()))
    return Taken(apprise.together(receipts))


_ONE_APPRISE = threading.Lock()


def _lines(path: str) -> list[str]:
    """Read a file of secrets, one a line. Raises ConfigError."""
    try:
        found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if lines := [line for line in found if line and not line.startswith("#")]:
        return lines
    raise ConfigError(f"{path}: empty; wanted URLs of Apprise, one a line")


def secret(path: str) -> str:
    """Read a file with one secret. Read each time: a repaired one works at once. Raises ConfigError."""
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not found or not found.isprintable() or not found.isascii():
        raise ConfigError(f"{path}: wanted one line with the secret")
    return found


def _posted(channel: Channel, ask: HttpAsk, read: Callable[[HttpAnswer], Receipt]) -> Taken:
    answer = post(ask, ca_file=channel.ca_file)
    if isinstance(answer, Receipt):
        return Taken(answer)
    receipt = read(answer)
    why = receipt.why
    for each in ask.secrets:
        why = why.replace(each, "[secret]")
    return Taken(receipt._replace(why=why), retry_after(answer, now=time.time()))


def post(ask: HttpAsk, *, ca_file: str = "") -> HttpAnswer | Receipt:
    """Make one request; where there is no answer, tell whether the request can have been taken."""
    try:
        with requests.post(
            ask.url, headers=dict(ask.headers), data=ask.body, timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            allow_redirects=False, verify=ca_file or True, stream=True,
        ) as response:  # fmt: skip
            headers = tuple((name.lower(), value) for name, value in response.headers.items())
            return HttpAnswer(response.status_code, headers, _begin_of(response))
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema):
        return Receipt(Result.BROKEN, "what should be a URL is none")
    except (requests.RequestException, OSError) as error:
        return Receipt(Result.LATER if not_sent(error) else Result.UNSURE, f"no answer: {type(error).__name__}")


def _begin_of(response: requests.Response) -> bytes:
    try:
        return next(response.iter_content(_ANSWER_MAX), b"")
    except (requests.RequestException, OSError):
        return b""  # the status came: that is an answer


def not_sent(error: Exception) -> bool:
    """Whether the request cannot have reached anybody: no connection, no name, no TLS."""
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.SSLError):
        return True
    inner = error.args[0] if error.args else None
    return isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError)


def _lacks(*names: str) -> Callable[[ChannelConfig], str]:
    def lacking(config: ChannelConfig) -> str:
        return "" if any(getattr(config, name) for name in names) else f"missing: {' or '.join(names)}"

    return lacking


def _slack_lacks(config: ChannelConfig) -> str:
    if config.token_file and not config.channel:
        return "missing: channel, the id of the Slack channel that the bot posts to"
    return _lacks("url_file", "token_file")(config)


def _apprise_lacks(config: ChannelConfig) -> str:
    if importlib.util.find_spec("apprise") is None:
        return "Apprise is not installed; wanted pip install 'postfix-sidecar[apprise]'"
    return _lacks("url_file")(config)


_PAGED = frozenset({"critical", "error"})
_TOLD = frozenset({"critical", "error", "warning"})
_MESSAGES = MESSAGES | {NoteKind.TEST}
_PAGER = frozenset(NoteKind) - {NoteKind.UNSURE, NoteKind.DIGEST}
_READ = _MESSAGES | {NoteKind.DIGEST}
"""What people read at leisure too."""

KINDS: Mapping[ChannelKind, Kind] = {
    ChannelKind.SLACK: Kind(_slack_lacks, _slack, _READ, _TOLD, repeatable=False, gap=1.1),
    ChannelKind.PAGERDUTY: Kind(_lacks("routing_key_file"), _pagerduty, _PAGER, _PAGED, repeatable=True, gap=0.5),
    ChannelKind.ALERTMANAGER: Kind(
        _lacks("url"), _alertmanager, _MESSAGES, _TOLD, repeatable=True, gap=0.1, repeat_every=alertmanager.EVERY
    ),
    ChannelKind.WEBHOOK: Kind(_lacks("url", "url_file"), _webhook, _READ, _TOLD, repeatable=True, gap=0.1),
    ChannelKind.MAIL: Kind(_lacks("to"), _mail, _READ, _TOLD, repeatable=False, gap=0.1),
    ChannelKind.APPRISE: Kind(_apprise_lacks, _apprise, _READ, _TOLD, repeatable=False, gap=1.1),
}


def stand_ins(channels: Iterable[Channel], broken: Channel, note: Note) -> list[Channel]:
    """List who may say it instead, the best first: those that want it, in the order of the configuration."""
    order = list(channels)
    place = order.index(broken)
    others = order[place + 1 :] + order[:place]
    return sorted(others, key=lambda each: note.severity not in each.severities)
