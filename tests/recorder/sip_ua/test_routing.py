"""Where messages go when no name must be looked up."""

import pytest

from recorder.model import Transport
from recorder.sip_ua.layer import Hop
from recorder.sip_ua.routing import literal_target, response_hop, session_hops
from recorder.sip_ua.wire import Flow, Target
from tests.sip_messages import OURS, endpoint, parsed, request


@pytest.mark.parametrize(
    ("uri", "transport", "where"),
    [
        ("sip:a@10.0.0.2", Transport.UDP, "10.0.0.2:5060"),
        ("sip:10.0.0.2:7;transport=TCP", Transport.TCP, "10.0.0.2:7"),
        ("sips:10.0.0.2", Transport.TLS, "10.0.0.2:5061"),
        ("sips:10.0.0.2;transport=tcp", Transport.TLS, "10.0.0.2:5061"),
        ("sip:[2001:db8::1]:5070;transport=tls", Transport.TLS, "[2001:db8::1]:5070"),
        ("sip:far.example;maddr=10.0.0.9", Transport.UDP, "10.0.0.9:5060"),
    ],
)
def test_addresses_are_targets(uri: str, transport: Transport, where: str):
    target = literal_target(uri)
    assert target is not None
    assert (target.transport, str(target.endpoint)) == (transport, where)


@pytest.mark.parametrize("uri", ["sip:host.example", "tel:1", "sip:10.0.0.1;transport=sctp", "", "sip:"])
def test_all_else_is_looked_up_or_leads_nowhere(uri: str):
    assert literal_target(uri) is None


@pytest.mark.parametrize(
    ("via", "transport", "port"),
    [
        ("SIP/2.0/UDP h:7;branch=b;rport", Transport.UDP, 6000),
        ("SIP/2.0/UDP h:7;branch=b", Transport.UDP, 7),
        ("SIP/2.0/UDP h;branch=b", Transport.UDP, 5060),
        ("SIP/2.0/TCP h:7;branch=b;rport", Transport.TCP, 7),
        ("SIP/2.0/TLS h;branch=b", Transport.TLS, 5061),
    ],
)
def test_responses_go_where_the_via_and_the_packet_say(via: str, transport: Transport, port: int):
    source = endpoint("10.0.0.2", 6000)
    flow = Flow(3, transport, OURS)
    hop = response_hop(parsed(request().encode(via)), source, flow)
    assert hop == Hop(Target(transport, endpoint("10.0.0.2", port)), flow)


UDP_FLOW = Flow(1, Transport.UDP, OURS)
TCP_FLOW = Flow(2, Transport.TCP, OURS, endpoint("198.51.100.7", 40000))
TLS_FLOW = Flow(3, Transport.TLS, OURS, endpoint("198.51.100.7", 40000))


def target(host: str, transport: Transport = Transport.UDP, port: int = 5060) -> Target:
    return Target(transport, endpoint(host, port))


@pytest.mark.parametrize(
    ("targets", "flow", "seen", "hops"),
    [
        ([target("10.0.0.9")], UDP_FLOW, "10.0.0.2", [Hop(target("10.0.0.9"), UDP_FLOW)]),
        ([target("9.9.9.9")], UDP_FLOW, "8.8.8.8", [Hop(target("9.9.9.9"), UDP_FLOW)]),
        ([], UDP_FLOW, "10.0.0.2", [Hop(target("10.0.0.2", port=6000), UDP_FLOW)]),
        ([target("192.168.1.5")], UDP_FLOW, "8.8.8.8", [Hop(target("8.8.8.8", port=6000), UDP_FLOW)]),
        ([target("10.0.0.9", Transport.TCP)], UDP_FLOW, "10.0.0.2", [Hop(target("10.0.0.9", Transport.TCP))]),
    ],
)
def test_a_session_over_udp_goes_to_the_contact_unless_that_cannot_be_reached(
    targets: list[Target], flow: Flow, seen: str, hops: list[Hop]
):
    assert session_hops(targets, Hop(Target(flow.transport, endpoint(seen, 6000)), flow)) == hops


def test_a_session_over_a_connection_keeps_to_it_where_it_leads_to_the_same_host():
    back = Hop(target("198.51.100.7", Transport.TCP, 40000), TCP_FLOW)
    contact = target("198.51.100.7", Transport.UDP, 5080)
    assert session_hops([contact], back) == [
        Hop(target("198.51.100.7", Transport.TCP, 5080), TCP_FLOW),
        Hop(contact),
    ]
    elsewhere = target("198.51.100.8", Transport.TCP)
    assert session_hops([elsewhere], back) == [Hop(elsewhere), back]
    assert session_hops([], back) == [back]


def test_what_came_by_tls_goes_by_tls():
    back = Hop(target("198.51.100.7", Transport.TLS, 40000), TLS_FLOW)
    hops = session_hops([target("198.51.100.8"), target("198.51.100.9", Transport.TCP)], back)
    assert {hop.target.transport for hop in hops} == {Transport.TLS}
