"""A small name server for the lab: one zone of made-up records with real host names, over UDP and TCP.

It answers what it was given and NXDOMAIN or an empty answer for the rest; it never asks anybody else.
"""

import asyncio
import contextlib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset

from sidecar.lab.scenario import Provider

SINK_HOST = "mx.sender-side.example"
_LOOPBACK = "127.0.0"
_FIRST_ADDRESS = 11
_TTL = 60


class Record(NamedTuple):
    name: str
    type: str
    data: str


def sink_address(network: str = _LOOPBACK) -> str:
    """Where mail to the senders' own domains goes: the bounces."""
    return f"{network}.9"


def addresses(providers: Sequence[Provider], network: str = _LOOPBACK) -> dict[str, str]:
    """An address for each MX host, in the order of the scenario: 127.0.0.11, .12, ..."""
    hosts = dict.fromkeys(host for provider in providers for host in provider.mx)
    return {host: f"{network}.{number}" for number, host in enumerate(hosts, _FIRST_ADDRESS)}


def zone(providers: Sequence[Provider], sender_domains: Iterable[str], network: str = _LOOPBACK) -> Iterator[Record]:
    """Every record of the lab: MX of the providers' domains and of the senders', addresses and their names."""
    for host, address in addresses(providers, network).items():
        yield from _host(host, address)
    yield from _host(SINK_HOST, sink_address(network))
    for provider in providers:
        for domain in provider.domains:
            for preference, host in enumerate(provider.mx, 1):
                yield Record(domain, "MX", f"{preference * 5} {host}.")
    for domain in sorted(set(sender_domains)):
        yield Record(domain, "MX", f"10 {SINK_HOST}.")
        yield Record(domain, "TXT", '"v=spf1 ip4:127.0.0.0/8 ip4:10.0.0.0/8 -all"')


def _host(host: str, address: str) -> Iterator[Record]:
    yield Record(host, "A", address)
    yield Record(str(dns.reversename.from_address(address)).rstrip("."), "PTR", f"{host}.")


class NameServer:
    """Answers from a set of records that drills change; `broken` makes every answer SERVFAIL."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.broken = False
        self._records = list(records)
        self._sets: Mapping[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = _by_question(
            self._records
        )
        self._names = {name for name, _ in self._sets}
        self._answers: dict[bytes, bytes] = {}

    def change(self, *more: Record, without: Sequence[tuple[str, str]] = ()) -> None:
        """Add records, after those of the names and types in `without` are gone."""
        self._records = [each for each in self._records if each[:2] not in set(without)] + list(more)
        self._sets = _by_question(self._records)
        self._names = {name for name, _ in self._sets}
        self._answers.clear()

    @contextlib.asynccontextmanager
    async def serve(self, addresses: Sequence[str], port: int = 53):  # type: ignore[no-untyped-def]  # noqa: ANN201  # contextlib says it
        """Listen on all addresses, UDP and TCP, as long as the context lasts."""
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as open_now:
            for address in addresses:
                _, datagrams = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(address, port))
                open_now.push_async_callback(datagrams.close)
                server = await asyncio.start_server(self._stream, address, port)
                open_now.callback(server.close)
            yield self

    def answer(self, query: bytes) -> bytes | None:
        """The answer to one query as it goes over the wire, None where nothing can be said."""
        if self.broken:
            with contextlib.suppress(dns.exception.DNSException):
                reply = dns.message.make_response(dns.message.from_wire(query))
                reply.set_rcode(dns.rcode.SERVFAIL)
                return reply.to_wire()
            return None
        # The same question comes for each delivery; only the first two bytes (the id) differ.
        known = self._answers.get(query[2:])
        if known is None:
            try:
                known = self._work_out(dns.message.from_wire(query)).to_wire()[2:]
            except (dns.exception.DNSException, IndexError):
                return None
            self._answers[query[2:]] = known
        return query[:2] + known

    def _work_out(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        reply.flags |= dns.flags.AA
        question = query.question[0]
        found = self._sets.get((question.name, question.rdtype))
        if found is not None:
            reply.answer.append(found)
        elif question.name not in self._names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = self.answer(await reader.readexactly(length))
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self.server = server
        self._closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # It is one, but in 3.11 not by inheritance.
        self.transport = typing.cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._closed.set_result(None)

    async def close(self) -> None:
        """Close the socket; the address is free when this returns."""
        self.transport.close()
        await self._closed

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.server.answer(data)
        if reply is not None:
            self.transport.sendto(reply, addr)


def _by_question(
    records: Iterable[Record],
) -> dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for record in records:
        grouped.setdefault((record.name, record.type), []).append(record.data)
    return {
        (dns.name.from_text(name), dns.rdatatype.from_text(type_)): dns.rrset.from_text_list(
            name + ".", _TTL, "IN", type_, data
        )
        for (name, type_), data in grouped.items()
    }
