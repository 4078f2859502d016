"""Postfix's policy protocol (SMTPD_POLICY_README): bytes of a connection in, requests out, and the bytes of an answer.

Knows the wire and the few actions we ever answer; does not know why one is answered, nor any socket.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Final, NamedTuple, Self

MAX_REQUEST: Final = 65_536
"""Bytes of one request, its empty line included. smtpd's line_length_limit makes 15 KB the honest maximum."""
MAX_ATTRIBUTES: Final = 100
MAX_VALUE: Final = 400
"""Bytes of an action with its text: smtpd cuts SMTP replies at 510."""


class ProtocolError(ValueError):
    """The bytes are no policy request; the connection is of no further use.

    `requests` are those that were complete before the breach: they are answered before the connection
    is closed, so that it makes no difference how the bytes were cut.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.requests: list[PolicyRequest] = []


class PolicyRequest(NamedTuple):
    """One question of smtpd, in the README's words; an attribute not sent is "" (0 for numbers), as there.

    Texts are decoded as UTF-8, other bytes stand as lone surrogates (surrogateescape): with
    `smtputf8_enable = no` a client's raw 8-bit bytes get here. Addresses are in internal form: unquoted.
    """

    protocol_state: str
    """CONNECT, EHLO, HELO, MAIL, RCPT, DATA, END-OF-MESSAGE, VRFY, ETRN. With `smtpd_delay_reject` the
    restrictions of client, HELO and sender say RCPT too; only `policy_context` tells them apart."""
    client_address: str
    client_name: str
    helo_name: str
    sender: str
    """"" is the null sender."""
    recipient: str
    """The one asked about at RCPT; later only where exactly one was accepted."""
    recipient_count: int
    """Accepted recipients, from DATA on; 0 before."""
    queue_id: str
    """"" until a recipient was accepted, and always with `smtpd_proxy_filter`."""
    instance: str
    """The same for all questions about one message; "" before MAIL FROM. Opaque."""
    size: int
    """Bytes: as the client announced (SIZE=), at END-OF-MESSAGE as received."""
    sasl_username: str
    policy_context: str

    @classmethod
    def of(cls, attributes: Mapping[str, str]) -> Self:
        """Take from attributes what we know; others are ignored, as the README wants."""
        get = attributes.get
        return cls(
            protocol_state=get("protocol_state", ""),
            client_address=get("client_address", ""),
            client_name=get("client_name", ""),
            helo_name=get("helo_name", ""),
            sender=get("sender", ""),
            recipient=get("recipient", ""),
            recipient_count=_number(get("recipient_count", "")),
            queue_id=get("queue_id", ""),
            instance=get("instance", ""),
            size=_number(get("size", "")),
            sasl_username=get("sasl_username", ""),
            policy_context=get("policy_context", ""),
        )


class PolicyConnection:
    """What came over one connection so far, less the requests already given out."""

    __slots__ = ("_received", "_searched", "_usual", "partial")

    def __init__(self) -> None:
        self._received = bytearray()
        self._searched = 0
        """No request ends before this offset."""
        self._usual: _Usual | None = None
        """Reads a request with the attributes of the last one, which are in the order of its."""
        self.partial = False
        """A request has begun and not ended."""

    def receive_usual(self, data: bytes) -> PolicyRequest | None:
        """Give the one request that these bytes are, where it looks like the one before it; else None."""
        usual = self._usual
        return None if usual is None or self.partial else usual.read(data)

    def receive_data(self, data: bytes) -> list[PolicyRequest]:
        """Give the requests that are complete with these bytes, in order; any cut of the bytes gives the same.

        Raises ProtocolError.
        """
        usual = self.receive_usual(data)
        return [usual] if usual is not None else self.receive_other(data)

    def receive_other(self, data: bytes) -> list[PolicyRequest]:
        """As `receive_data`, of bytes that `receive_usual` made nothing of. Raises ProtocolError."""
        self._received += data
        requests: list[PolicyRequest] = []
        try:
            self._complete(requests)
        except ProtocolError as error:
            error.requests = requests
            raise
        self.partial = bool(self._received)
        return requests

    def _complete(self, requests: list[PolicyRequest]) -> None:
        """Add those that are complete. Raises ProtocolError, where those before the breach are added."""
        while (end := self._received.find(b"\n\n", self._searched)) >= 0:
            block = bytes(self._received[: end + 2])
            del self._received[: end + 2]
            self._searched = 0
            attributes = _attributes(block)
            shape = _shape(tuple(attributes))
            self._usual = None if shape is None else _Usual(shape)
            requests.append(PolicyRequest.of(attributes))
        self._searched = max(0, len(self._received) - 1)
        if self._received.startswith(b"\n"):
            raise ProtocolError("an empty request")
        if len(self._received) >= MAX_REQUEST:
            raise ProtocolError(f"a request of more than {MAX_REQUEST} bytes")


def read_request(block: bytes) -> PolicyRequest:
    """Read one request, from its first byte to its empty line, whatever the order of its attributes.

    A line without "=" is ignored, of a name sent twice the last value counts (the README allows either).
    Raises ProtocolError.
    """
    return PolicyRequest.of(_attributes(block))


def _attributes(block: bytes) -> dict[str, str]:
    if block.startswith(b"\n"):
        raise ProtocolError("an empty request")
    if len(block) > MAX_REQUEST:
        raise ProtocolError(f"a request of more than {MAX_REQUEST} bytes")
    lines = block[:-2].decode("utf-8", "surrogateescape").split("\n")
    if len(lines) > MAX_ATTRIBUTES:
        raise ProtocolError(f"a request of {len(lines)} attributes; wanted at most {MAX_ATTRIBUTES}")
    attributes = {name: value for name, equals, value in (line.partition("=") for line in lines) if equals}
    kind = attributes.get("request", "")
    if kind != "smtpd_access_policy":
        raise ProtocolError(f"request={kind[:40]!a}; wanted request=smtpd_access_policy")
    return attributes


def _number(text: str) -> int:
    return int(text) if _DIGITS.fullmatch(text) else 0


_DIGITS: Final = re.compile("[0-9]{1,18}")

# One smtpd sends the same attributes in the same order each time (smtpd_check.c, check_policy_service), another
# version or build others. So a request that is read with a dictionary tells what the next ones will look like, and one
# expression for that reads them in a third of the time; tests hold both to the same result.
_KIND: Final = "request=smtpd_access_policy\nprotocol_state="
_OPENINGS: Final = tuple((f"{_KIND}{state}\n", state) for state in ("RCPT", "END-OF-MESSAGE", "DATA"))
_BEFORE: Final = ("client_address", "client_name", "helo_name")
_CHANGING: Final = ("sender", "recipient", "recipient_count", "queue_id", "instance", "size")
"""What differs between the questions of one SMTP session; what stands before and behind it does so seldom."""
_BEHIND: Final = ("sasl_username", "policy_context")


@lru_cache(maxsize=64)
def _shape(names: tuple[str, ...]) -> re.Pattern[str] | None:
    """Give what reads one request with exactly these attributes in this order; None for one that no smtpd has."""
    first = names.index("sender") if "sender" in names else 0
    end = first + len(_CHANGING)
    if names[:2] != ("request", "protocol_state") or names[first:end] != _CHANGING:
        return None
    before = _expression(names[2:first], _BEFORE)
    changing = _expression(_CHANGING, _CHANGING)
    behind = _expression(names[end:], _BEHIND)
    whole = re.compile(f"{_KIND}(.*+)(\n{before}){changing}({behind}\n)")
    return whole if whole.groups == len(PolicyRequest._fields) + 2 else None


class _Usual:
    """Reads requests of one shape, and of any other bytes makes None.

    While one SMTP client is there, most of what its smtpd sends is what it sent before: that is compared as a whole,
    which takes a third of the time of reading it.
    """

    __slots__ = ("_behind", "_client", "_context", "_head", "_helo", "_login", "_name", "_whole")

    def __init__(self, shape: re.Pattern[str]) -> None:
        self._whole = shape.fullmatch
        self._head = self._behind = ""
        """Of the request before, from behind its state to before its sender, and from behind its size."""
        self._client = self._name = self._helo = self._login = self._context = ""
        """What stands there."""

    def read(self, data: bytes) -> PolicyRequest | None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return None
        if len(data) > MAX_REQUEST:
            return None
        if text.endswith(self._behind):
            for opening, state in _OPENINGS:
                if text.startswith(opening):
                    return self._read_alike(text, state, len(opening) - 1)
        return self._read_anew(text)

    def _read_alike(self, text: str, state: str, at: int) -> PolicyRequest | None:
        """Read what may be like the one before, but for the state, which ends before `at`."""
        start = at + len(self._head)
        if start == at or text[at:start] != self._head:
            return self._read_anew(text)
        lines = text[start : len(text) - len(self._behind)].split("\n")
        if len(lines) != len(_CHANGING) + 1:
            return self._read_anew(text)
        sender, recipient, count, queue_id, instance, size, rest = lines
        if not (
            sender.startswith("sender=")
            and recipient.startswith("recipient=")
            and count.startswith("recipient_count=")
            and queue_id.startswith("queue_id=")
            and instance.startswith("instance=")
            and size.startswith("size=")
        ):
            return self._read_anew(text)
        count, size = count[16:], size[5:]
        digits = count + size
        if rest or len(count) > 18 or len(size) > 18 or not (digits.isascii() and digits.isdigit()):
            return self._read_anew(text)
        values = (
            state,
            self._client,
            self._name,
            self._helo,
            sender[7:],
            recipient[10:],
            int(count) if count else 0,
            queue_id[9:],
            instance[9:],
            int(size) if size else 0,
            self._login,
            self._context,
        )
        return _new(PolicyRequest, values)

    def _read_anew(self, text: str) -> PolicyRequest | None:
        found = self._whole(text)
        if found is None:
            return None
        (
            state, self._head, self._client, self._name, self._helo, sender, recipient, count, queue_id, instance, size,
            self._behind, self._login, self._context,
        ) = found.groups()  # fmt: skip
        count, size = int(count or 0), int(size or 0)
        values = (
            state, self._client, self._name, self._helo, sender, recipient, count, queue_id, instance, size,
            self._login, self._context,
        )  # fmt: skip
        return _new(PolicyRequest, values)


_new: Final = tuple.__new__  # a third of the time that PolicyRequest(...) takes


def _expression(names: Iterable[str], kept: Iterable[str]) -> str:
    """Write a line an attribute, and of the values that are kept one group each, in that order.

    One that is not sent has an empty group. Values are possessive (+), for nothing that one takes could ever be
    wanted back: a third faster. Of a line that we do not keep only as much is looked at as tells it from those that
    we do: each letter costs, and with whole names it took a tenth longer.
    """
    fields = iter(kept)
    lines = []
    for name in names:
        if name in PolicyRequest._fields:
            lines += ["()" for _ in takewhile(name.__ne__, fields)]
            lines.append(f"{name}={_VALUES[PolicyRequest.__annotations__[name]]}\n")
        else:
            lines.append(f"{re.escape(_beginning(name))}.*+\n")
    return "".join([*lines, *("()" for _ in fields)])


def _beginning(name: str) -> str:
    """Give the shortest beginning of `name=` with which nothing begins that we read: whatever follows is ignored."""
    line = f"{name}="
    read = [f"{known}=" for known in ("request", *PolicyRequest._fields)]
    beginnings = (line[:length] for length in range(1, len(line) + 1))
    return next(beginning for beginning in beginnings if not any(known.startswith(beginning) for known in read))


_VALUES: Final = {str: "(.*+)", int: "([0-9]{0,18}+)"}


# What we may answer: access(5), less everything that means "permit". OK, an empty action and bare digits skip
# the rest of Postfix's list, so that no type stands for them.


@dataclass(frozen=True, slots=True)
class Dunno:
    """Go on: the only neutral answer."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The whole message goes to the hold queue; `text` is logged with it."""

    text: str


@dataclass(frozen=True, slots=True)
class Filter:
    """The whole message goes through this transport, each recipient to its own domain (2.7 and later)."""

    transport: str


@dataclass(frozen=True, slots=True)
class Reject:
    """554 (`access_map_reject_code`) with this RFC 3463 status, 5.x.y."""

    status: str
    text: str


@dataclass(frozen=True, slots=True)
class DeferIfPermit:
    """450 with this RFC 3463 status, 4.x.y, unless a later restriction rejects."""

    status: str
    text: str


@dataclass(frozen=True, slots=True)
class Discard:
    """The whole message, for all its recipients, is taken with a 250 and thrown away; `text` is logged."""

    text: str


@dataclass(frozen=True, slots=True)
class Info:
    """Go on, and log `text`: says what would have been answered."""

    text: str


@dataclass(frozen=True, slots=True)
class RejectUnverified:
    """Have smtpd ask the recipient's own server first (verify(8)).

    450 while it does, and `unverified_recipient_reject_code` where that refuses.
    """


Action = Dunno | Hold | Filter | Reject | DeferIfPermit | Discard | Info | RejectUnverified

DUNNO: Final = Dunno()


def value_of(action: Action) -> str:
    """Write an action in the words of access(5).

    Raises ValueError where Postfix would read something else than what is meant, or the text could forge a reply.
    """
    match action:
        case Dunno():
            return "DUNNO"
        case Hold(text):
            value = f"HOLD {_said(text)}"
        case Filter(transport):
            value = f"FILTER {_matching(_TRANSPORT, transport, wanted='the name of a transport, as lane-01')}:"
        case Reject(status, text):
            value = f"REJECT {_matching(_PERMANENT, status, wanted='a status as 5.1.1')} {_said(text)}"
        case DeferIfPermit(status, text):
            value = f"DEFER_IF_PERMIT {_matching(_TRANSIENT, status, wanted='a status as 4.7.1')} {_said(text)}"
        case Discard(text):
            value = f"DISCARD {_said(text)}"
        case Info(text):
            value = f"INFO {_said(text)}"
        case RejectUnverified():
            value = "reject_unverified_recipient"
    if len(value.encode()) > MAX_VALUE:
        raise ValueError(f"an action of {len(value.encode())} bytes: {value[:60]!a}...; wanted at most {MAX_VALUE}")
    return value


@lru_cache(maxsize=32_768)
def encode(action: Action) -> bytes:
    """Write the answer to one request. Raises ValueError, see `value_of`."""
    return f"action={value_of(action)}\n\n".encode()


_TRANSPORT: Final = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]*")
_PERMANENT: Final = re.compile(r"5\.[0-9]{1,3}\.[0-9]{1,3}")
_TRANSIENT: Final = re.compile(r"4\.[0-9]{1,3}\.[0-9]{1,3}")


def _said(text: str) -> str:
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError(f"text {text!a}; wanted printable characters, none of them at the edge a space")
    return text


def _matching(pattern: re.Pattern[str], text: str, *, wanted: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text!a}; wanted {wanted}")
    return text
