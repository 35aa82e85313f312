"""Where messages go when no name must be looked up."""

import pytest

from recorder.model import Transport
from recorder.sip_ua.layer import Hop
from recorder.sip_ua.routing import literal_target, response_hop
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
