"""What lies beyond this machine, as local servers: a name server and an HTTP server that say what a test tells them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from parsers.feeds.asking import Answer, Ask, Poll, Reading
from sidecar import mx
from sidecar.lab.http_server import HttpServer, Request, Response, http_server

__all__ = ["HttpServer", "NameServer", "Request", "Response", "Zone", "driven", "http_server", "name_server"]

# The DNS.

Zone = Mapping[tuple[str, str], Sequence[str] | str]
"""(name, type) -> data of the records, or the name of an rcode; "" for silence. A name of "*" is any other name."""


class NameServer(asyncio.DatagramProtocol):
    """Answers from a zone, and remembers what it was asked. What is not there does not exist."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        said = self.zone.get((name, kind), self.zone.get(("*", kind), "NXDOMAIN"))
        if said == "":
            return
        response = dns.message.make_response(query, recursion_available=True)
        if isinstance(said, str):
            response.set_rcode(dns.rcode.from_text(said))
        elif said:
            response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, list(said)))
        self._transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def name_server(zone: Zone) -> AsyncIterator[tuple[NameServer, Callable[[], dns.asyncresolver.Resolver]]]:
    """The server, and how resolvers that ask it are made."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(zone), local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")

    def resolver() -> dns.asyncresolver.Resolver:
        made = mx.resolver_at((f"{host}:{port}",))()
        made.lifetime = 0.5
        return made

    try:
        yield server, resolver
    finally:
        transport.close()


# A feed without any of it.


def driven(poll: Poll, answer: Callable[[Ask], Answer]) -> Reading:
    """Drive a feed with answers from a function, to its end."""
    answers: tuple[Answer, ...] | None = None
    while True:
        try:
            asks = poll.send(answers) if answers is not None else next(poll)
        except StopIteration as end:
            return cast("Reading", end.value)
        answers = tuple(answer(ask) for ask in asks)
