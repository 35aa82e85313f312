"""Where messages go as far as no name must be looked up: URIs with literal addresses, and responses.

In: URIs, messages. Out: targets. Names are `recorder.sip_ua.locate`'s (RFC 3263).
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from capture.address import Endpoint, parse_endpoint
from decoders.sip import SipMessage
from decoders.sip_address import parse_uri
from recorder.model import Transport
from recorder.sip_ua.layer import Hop
from recorder.sip_ua.wire import Flow, Target

LARGEST_DATAGRAM = 1300
"""Octets of a request beyond which it must not go by UDP (RFC 3261, section 18.1.1)."""

_MOST_REMEMBERED = 256
"""Targets, and characters of their URIs: the same few servers are asked for again and again."""
_TRANSPORTS = {"udp": Transport.UDP, "tcp": Transport.TCP, "tls": Transport.TLS}


def default_port(transport: Transport) -> int:
    """Port of a URI or Via that names none."""
    return 5061 if transport is Transport.TLS else 5060


def literal_target(uri: str) -> Target | None:
    """Target of a URI whose host is an address (RFC 3263, sections 4.1 and 4.2); None for names, other schemes and
    transports that are not served."""
    return _remembered(uri) if len(uri) <= _MOST_REMEMBERED else _literal_target(uri)


def _literal_target(uri: str) -> Target | None:
    parts = parse_uri(uri)
    if parts.scheme not in ("sip", "sips"):
        return None
    host = parts.params.get("maddr") or parts.host
    named = (parts.params.get("transport") or "").lower()
    secure = parts.scheme == "sips"
    transport = _TRANSPORTS.get(named) if named else Transport.TLS if secure else Transport.UDP
    if secure and transport is Transport.TCP:
        transport = Transport.TLS
    if transport is None:
        return None
    endpoint = parse_endpoint(host, parts.port if parts.port is not None else default_port(transport))
    return Target(transport, endpoint, host.strip("[]")) if endpoint is not None else None


_remembered = lru_cache(maxsize=_MOST_REMEMBERED)(_literal_target)


def response_hop(request: SipMessage, source: Endpoint, flow: Flow) -> Hop:
    """Where the response to a request goes (RFC 3261, section 18.2.2; RFC 3581, section 4)."""
    via = request.vias[0] if request.vias else None
    if via is not None and "rport" in via.params and not flow.reliable:
        return Hop(Target(flow.transport, source), flow)
    port = via.port if via is not None and via.port else default_port(flow.transport)
    return Hop(Target(flow.transport, Endpoint(source.high, source.low, port)), flow)


def session_hops(targets: Sequence[Target], back: Hop) -> list[Hop]:
    """Hops of a request within a session to the targets of its next hop; `back` is where the peer's messages come from.

    The session's own connection comes first where it leads to the same host, and last where it does not; what came by
    TLS goes by nothing else. By UDP a peer behind a NAT is reached where it was seen: where its Contact is private or
    leads nowhere."""
    flow = back.flow
    if flow is None or not flow.reliable:
        private = targets and _is_private(targets[0].endpoint) and not _is_private(back.target.endpoint)
        if not targets or (private and targets[0].transport is Transport.UDP):
            return [back]
        return [Hop(target, flow if target.transport is Transport.UDP else None) for target in targets]
    if flow.transport is Transport.TLS:
        targets = [target._replace(transport=Transport.TLS) for target in targets]
    others = [Hop(target) for target in targets]
    same = [target for target in targets if target.endpoint[:2] == back.target.endpoint[:2]]
    if same:
        return [Hop(same[0]._replace(transport=flow.transport), flow), *others]
    return [*others, back]


def _is_private(endpoint: Endpoint) -> bool:
    return ipaddress.ip_address(endpoint.host).is_private
