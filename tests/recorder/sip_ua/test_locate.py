"""Where URIs lead, asked of a DNS server on this machine."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from recorder.model import Transport
from recorder.sip_ua.locate import DnsNames, Locator

ZONE = {
    ("naptr.example.", "NAPTR"): [
        '20 10 "s" "SIP+D2U" "" _sip._udp.naptr.example.',
        '10 10 "s" "SIPS+D2T" "" secure.naptr.example.',
        '30 10 "s" "SIP+D2S" "" _sip._sctp.naptr.example.',
    ],
    ("secure.naptr.example.", "SRV"): ["10 0 5071 one.example."],
    ("_sip._udp.naptr.example.", "SRV"): ["20 0 5070 two.example.", "10 0 5072 one.example."],
    ("_sip._tcp.srv.example.", "SRV"): ["10 0 5080 one.example."],
    ("_sip._udp.weights.example.", "SRV"): ["10 0 1 one.example.", "10 90 2 one.example.", "10 10 3 one.example."],
    ("_sip._tcp.closed.example.", "SRV"): ["0 0 0 ."],
    ("_sip._udp.gone.example.", "SRV"): ["0 0 5060 nowhere.example."],
    ("closed.example.", "A"): ["192.0.2.3"],
    ("gone.example.", "A"): ["192.0.2.3"],
    ("one.example.", "A"): ["192.0.2.1"],
    ("two.example.", "A"): ["192.0.2.2"],
    ("two.example.", "AAAA"): ["2001:db8::2"],
    ("empty.example.", "A"): [],
}


class DnsServer(asyncio.DatagramProtocol):
    """Answers from a zone; what is not in it does not exist."""

    def __init__(self, zone: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self.zone, self.asked = zone, 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked += 1
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | dns.flags.RA
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        records = self.zone.get((name, kind))
        if records:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
        elif name not in {each for each, _ in self.zone}:
            response.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(response.to_wire(), address)


def locate(uri: str, **options: Any) -> list[str]:
    """Targets of a URI as text."""

    async def ask(locator: Locator, _: DnsServer) -> list[str]:
        return [f"{each.transport} {each.endpoint} {each.name}" for each in await locator(uri)]

    return with_server(ask, **options)


def with_server(ask: Callable[[Locator, DnsServer], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    async def run() -> Any:
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(lambda: DnsServer(ZONE), ("127.0.0.1", 0))
        try:
            names = DnsNames(["127.0.0.1"], transport.get_extra_info("sockname")[1], timeout=2.0)
            return await ask(Locator(names, **options), server)
        finally:
            transport.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("sip:a@192.0.2.9", ["udp 192.0.2.9:5060 192.0.2.9"]),
        ("sips:a@[2001:db8::9]:7", ["tls [2001:db8::9]:7 2001:db8::9"]),
        ("sip:a@192.0.2.9;transport=tcp", ["tcp 192.0.2.9:5060 192.0.2.9"]),
        ("sip:two.example:7", ["udp 192.0.2.2:7 two.example", "udp [2001:db8::2]:7 two.example"]),
        ("sips:one.example:7", ["tls 192.0.2.1:7 one.example"]),
        ("sip:one.example", ["udp 192.0.2.1:5060 one.example"]),
        ("sips:one.example", ["tls 192.0.2.1:5061 one.example"]),
        ("sip:one.example;transport=tls", ["tls 192.0.2.1:5061 one.example"]),
        ("sip:srv.example", ["tcp 192.0.2.1:5080 srv.example"]),
        ("sip:srv.example;transport=tcp", ["tcp 192.0.2.1:5080 srv.example"]),
        ("sip:x;maddr=one.example", ["udp 192.0.2.1:5060 one.example"]),
        ("sips:naptr.example", ["tls 192.0.2.1:5071 naptr.example"]),
        ("tel:+4930", []),
        ("sip:", []),
        ("sip:a@192.0.2.9;transport=sctp", []),
        ("sip:one.example;transport=ws", []),
        ("sip:nowhere.example", []),
        ("sip:empty.example", []),
        ("sip:closed.example;transport=tcp", []),
        ("sip:closed.example:5060;transport=tcp", ["tcp 192.0.2.3:5060 closed.example"]),
        ("sip:gone.example", []),
    ],
)
def test_a_uri_leads_where_rfc_3263_says(uri, wanted):
    assert locate(uri) == wanted


def test_naptr_says_which_transport_comes_first_and_srv_which_server():
    assert locate("sip:naptr.example") == [
        "tls 192.0.2.1:5071 naptr.example",
        "udp 192.0.2.1:5072 naptr.example",
        "udp 192.0.2.2:5070 naptr.example",
        "udp [2001:db8::2]:5070 naptr.example",
    ]


def test_transports_that_are_not_ours_lead_nowhere():
    assert locate("sips:one.example", serves=[Transport.UDP]) == []
    assert locate("sip:naptr.example", serves=[Transport.UDP])[0].startswith("udp")


def test_equal_priorities_are_drawn_by_weight_and_all_of_them_come():
    async def draw(locator: Locator, _: DnsServer) -> list[list[int]]:
        return [[each.endpoint.port for each in await locator("sip:weights.example")] for _ in range(400)]

    drawn = with_server(draw, random=Random(7))
    assert all(sorted(each) == [1, 2, 3] for each in drawn)
    firsts = [each[0] for each in drawn]
    assert 300 < firsts.count(2) < 395
    assert firsts.count(3) > 15


def test_an_answer_is_remembered_as_long_as_it_says():
    now = [0.0]

    async def ask(locator: Locator, server: DnsServer) -> list[int]:
        asked = []
        for now[0] in (0.0, 59.0, 61.0):
            await locator("sip:one.example:5060")
            asked.append(server.asked)
        return asked

    first, second, third = with_server(ask, clock=lambda: now[0])
    assert first == second < third


def test_a_server_that_is_silent_costs_seconds_and_nothing_else():
    async def ask() -> list[Any]:
        return list(await Locator(DnsNames(["127.0.0.1"], 9, timeout=0.3))("sip:one.test"))

    assert asyncio.run(asyncio.wait_for(ask(), 10)) == []
