"""Asks what a feed wants to know: HTTP with requests, DNS with dnspython, and a file for a secret that changed.

Knows time-outs, retries and sizes; whatever goes wrong becomes an answer that says so, never an exception.
"""

import asyncio
import contextlib
import email.utils
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.txtbase
import dns.resolver
import requests

from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk, HttpAnswer, HttpAsk, Keep, Kept, Poll, Reading
from sidecar.outside_store import RawAnswer
from sidecar.threads import in_thread

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 30.0
BODY_MAX = 16 << 20
"""Bytes of an HTTP answer, unpacked, beyond which it is no answer."""
ATTEMPTS = 3
"""Tries of one request, where trying again may help: no answer, 429, 5xx."""
PATIENCE = 20.0
"""Seconds of a Retry-After that are waited for within a poll; longer ones put off the next poll."""
A_ZONE = 5
"""Look-ups under way in one zone at a time."""
ALTOGETHER = 50
_CHUNK = 65_536


class Asking:
    """Answers the questions of feeds."""

    def __init__(
        self,
        resolver: Callable[[], dns.asyncresolver.Resolver],
        *,
        ca_file: str = "",
        backoff: float = 1.0,
    ) -> None:
        """`resolver` makes one anew for each poll; `ca_file`: certificates to trust instead of the usual ones;
        `backoff`: seconds before the second try, doubled for each further one.
        """
        self._resolver = resolver
        self._ca_file = ca_file
        self._backoff = backoff
        self._zones: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(A_ZONE))
        self._places = asyncio.Semaphore(ALTOGETHER)

    async def poll(self, poll: Poll) -> tuple[Reading, list[RawAnswer]]:
        """Drive a feed to its end; what it was answered over HTTP comes with it, without secrets."""
        raw: list[RawAnswer] = []
        resolver = self._resolver()
        with contextlib.closing(poll):
            asks = _begin(poll)
            while not isinstance(asks, Reading):
                answers = await asyncio.gather(*(self._answer(ask, resolver) for ask in asks))
                raw += [_raw(ask, answer) for ask, answer in zip(asks, answers, strict=True) if _is_http(ask)]
                asks = _go_on(poll, tuple(answers))
        return asks, raw

    async def _answer(self, ask: Ask, resolver: dns.asyncresolver.Resolver) -> Answer:
        match ask:
            case HttpAsk():
                return await self._http(ask)
            case DnsAsk():
                async with self._zones[ask.zone or ask.name], self._places:
                    return await look_up(ask, resolver)
            case Keep():
                return await in_thread(lambda: keep(ask))

    async def _http(self, ask: HttpAsk) -> HttpAnswer:
        for attempt in range(ATTEMPTS):
            answer = await in_thread(lambda: fetch(ask, ca_file=self._ca_file))
            wait = max(self._backoff * 2**attempt * random.uniform(0.5, 1.5), retry_after(answer, now=time.time()))
            if not _may_pass(answer) or attempt == ATTEMPTS - 1 or wait > PATIENCE:
                return answer
            await asyncio.sleep(wait)
        raise AssertionError  # the loop returns


def _begin(poll: Poll) -> tuple[Ask, ...] | Reading:
    try:
        return next(poll)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a Poll returns a Reading


def _go_on(poll: Generator[tuple[Ask, ...], tuple[Answer, ...], Reading], answers: tuple[Answer, ...]) -> Any:
    try:
        return poll.send(answers)
    except StopIteration as end:
        return end.value


def _is_http(ask: Ask) -> bool:
    return isinstance(ask, HttpAsk)


def _may_pass(answer: HttpAnswer) -> bool:
    return answer.status in {0, 429} or answer.status >= 500


def retry_after(answer: HttpAnswer, *, now: float) -> float:
    """Seconds that the server wants us to wait (RFC 9110 section 10.2.3: a number, or a date); 0 where it says none."""
    said = answer.header("retry-after").strip()
    if said.isdecimal():
        return float(said[:9])
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - now)
    return 0.0


def fetch(ask: HttpAsk, *, ca_file: str = "") -> HttpAnswer:
    """One request, bounded in time and size."""
    try:
        with requests.request(
            ask.method,
            ask.url,
            headers=dict(ask.headers),
            data=ask.body or None,
            timeout=(CONNECT_SECONDS, TOTAL_SECONDS),
            allow_redirects=False,
            verify=ca_file or True,
            stream=True,
        ) as response:
            headers = tuple((name.lower(), value) for name, value in response.headers.items())
            return HttpAnswer(response.status_code, headers, _body(response))
    except (requests.RequestException, OSError, ValueError) as error:
        return HttpAnswer(0, error=_without(ask.secrets, f"{type(error).__name__}: {error}")[:300])


def _body(response: requests.Response) -> bytes:
    """Read it as it comes: a server may send for ever, or unpack to more than there is memory."""
    until = time.monotonic() + TOTAL_SECONDS
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > BODY_MAX:
            raise ValueError(f"an answer of more than {BODY_MAX >> 20} MiB")
        if time.monotonic() > until:
            raise ValueError(f"an answer that takes more than {TOTAL_SECONDS:.0f} s")
    return bytes(body)


async def look_up(ask: DnsAsk, resolver: dns.asyncresolver.Resolver) -> DnsAnswer:
    """One look-up; no search list, no exception."""
    try:
        answer = await resolver.resolve(_absolute(ask.name), ask.type, search=False, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return DnsAnswer("NXDOMAIN")
    except dns.resolver.NoNameservers as error:
        return DnsAnswer(_rcode(error))
    except dns.exception.Timeout:
        return DnsAnswer("TIMEOUT")
    except (dns.exception.DNSException, OSError, ValueError):
        return DnsAnswer("ERROR")
    records = tuple(_text(record) for record in answer.rrset or ())
    return DnsAnswer("NOERROR", records, float(answer.rrset.ttl) if answer.rrset else 0.0)


def _absolute(name: str) -> dns.name.Name:
    return dns.name.from_text(name.rstrip(".") + ".")


def _rcode(error: dns.resolver.NoNameservers) -> str:
    """What the last server said that answered at all."""
    for *_, response in reversed(error.kwargs.get("errors", ())):
        if response is not None:
            return dns.rcode.to_text(response.rcode())
    return "ERROR"


def _text(record: dns.rdata.Rdata) -> str:
    if isinstance(record, dns.rdtypes.txtbase.TXTBase):
        return b"".join(record.strings).decode("utf-8", "replace")
    return record.to_text()


def keep(ask: Keep) -> Kept:
    """Write a secret whole and safely, readable by us alone: a rotated token that is lost locks us out.

    It stays its owner's, or becomes that of the directory's: root, by hand, must not lock out the outside process.
    """
    path = Path(ask.path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                if os.geteuid() == 0:
                    owner = (path if path.exists() else path.parent).stat()
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                file.write(ask.text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        return Kept(f"{path}: cannot be written: {error.strerror}")
    return Kept()


def _raw(ask: Ask, answer: Answer) -> RawAnswer:
    assert isinstance(ask, HttpAsk)
    assert isinstance(answer, HttpAnswer)
    asked = _without(ask.secrets, f"{ask.method} {ask.url} -> {answer.status or answer.error}")
    body = b"[secret]" if ask.private else answer.body
    for secret in ask.secrets:
        body = body.replace(secret.encode(), b"[secret]") if secret else body
    return RawAnswer(asked, body)


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "[secret]") if secret else text
    return text
