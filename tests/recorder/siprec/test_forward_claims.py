"""Whose flow is whose, as the forwarder is told while calls go on."""

from capture.address import Endpoint, parse_endpoint
from decoders.sdp import STATIC_FORMATS, Direction, PayloadFormat
from decoders.sdp_values import CryptoKey
from recorder.endpoints import GRACE, EndpointRegistry
from recorder.model import MediaEndpoint, Side
from recorder.siprec.forward import NewFlow
from recorder.siprec.forward_claims import CONFIRMED_EVERY, UNCLAIMED, ForwardClaims
from recorder.siprec.legs import Source

SECOND = 1_000_000_000
NOW = 100 * SECOND
PCMU, PCMA = STATIC_FORMATS[0], STATIC_FORMATS[8]
KEY = CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", bytes(30))


def end(host: int, port: int = 4000) -> Endpoint:
    found = parse_endpoint(f"192.0.2.{host}", port)
    assert found is not None
    return found


A, RELAY_A, RELAY_B, B = (end(host) for host in range(1, 5))


def endpoint(where: Endpoint, side: Side, call: int = 0, hop: int = 0, **changes) -> MediaEndpoint:
    known = MediaEndpoint(
        call=call, side=side, hop=hop, media_index=0, media="audio", endpoint=where, rtcp=None, formats={0: PCMU},
        direction=Direction.SENDRECV, crypto=(), encrypted=False, dtls=False, label=None, since=NOW, packet=1, realm=0,
    )  # fmt: skip
    return known._replace(**changes)


class Told:
    """What a forwarder was told."""

    def __init__(self) -> None:
        self.new: list[NewFlow] = []
        self.gone: list[int] = []
        self.said: list[tuple] = []

    def take_new_flows(self) -> list[NewFlow]:
        found, self.new = self.new, []
        return found

    def take_gone_flows(self) -> list[int]:
        found, self.gone = self.gone, []
        return found

    def place(self, flow, source, formats, crypto=()) -> None:
        self.said.append((flow.number, source, dict(formats), tuple(crypto)))

    def pass_over(self, flow) -> None:
        self.said.append((flow.number, None))

    def take(self) -> list[tuple]:
        found, self.said = self.said, []
        return found


def flow(number: int, source: Endpoint, destination: Endpoint, first: int = NOW) -> NewFlow:
    return NewFlow(number, source, destination, 1000 + number, 0, first)


def one_call(*more: MediaEndpoint) -> tuple[EndpointRegistry, Told, ForwardClaims]:
    registry, told = EndpointRegistry(), Told()
    for each in more or (endpoint(A, Side.CALLER), endpoint(B, Side.CALLEE)):
        registry.announce(each, each.endpoint)
    return registry, told, ForwardClaims(registry, told)


CALLER, CALLEE = Source(0, Side.CALLER, 0), Source(0, Side.CALLEE, 0)


def test_both_directions_are_placed_with_their_formats():
    _, told, claims = one_call()
    told.new = [flow(0, A, B), flow(1, B, A)]
    claims.turn(NOW)
    assert told.take() == [(0, CALLER, {0: PCMU}, ()), (1, CALLEE, {0: PCMU}, ())]
    for second in range(1, 5):
        claims.turn(NOW + second * SECOND)
    assert told.take() == []  # nothing has changed


def test_the_hop_that_is_nearest_to_the_speaker_comes_first():
    _, told, claims = one_call(
        endpoint(A, Side.CALLER, hop=0),
        endpoint(RELAY_A, Side.CALLEE, hop=0),
        endpoint(RELAY_B, Side.CALLER, hop=1),
        endpoint(B, Side.CALLEE, hop=1),
    )
    told.new = [flow(0, RELAY_B, B), flow(1, A, RELAY_A), flow(2, RELAY_A, A), flow(3, B, RELAY_B)]
    claims.turn(NOW)
    order = [(number, source.side) for number, source, *_ in told.take()]
    assert [number for number, side in order if side is Side.CALLER] == [1, 0]
    assert [number for number, side in order if side is Side.CALLEE] == [3, 2]


def test_media_before_its_description_waits_for_it():
    registry, told, claims = one_call()
    told.new = [flow(0, RELAY_A, RELAY_B)]
    claims.turn(NOW)
    assert told.take() == []
    late = endpoint(RELAY_B, Side.CALLEE, call=4)
    registry.announce(late, late.endpoint)
    claims.turn(NOW + SECOND // 50)
    assert [said[:2] for said in told.take()] == [(0, Source(4, Side.CALLER, 0))]


def test_flows_of_nobody_are_let_go_once_and_taken_up_when_somebody_speaks_for_them():
    registry, told, claims = one_call()
    told.new = [flow(0, RELAY_A, RELAY_B)]
    for tenth in range(300):
        claims.turn(NOW + tenth * SECOND // 10)
    assert told.take() == [(0, None)]
    late = endpoint(RELAY_B, Side.CALLEE, call=4, since=NOW + 30 * SECOND)
    registry.announce(late, late.endpoint)
    claims.turn(NOW + 30 * SECOND + UNCLAIMED)
    assert [said[:2] for said in told.take()] == [(0, Source(4, Side.CALLER, 0))]


def test_new_formats_are_told():
    registry, told, claims = one_call()
    told.new = [flow(0, A, B)]
    claims.turn(NOW)
    told.take()
    opus = PayloadFormat(111, "opus", 48000, 2)
    renewed = endpoint(B, Side.CALLEE, formats={111: opus, 8: PCMA})
    registry.announce(renewed, renewed.endpoint)
    claims.turn(NOW + 2 * SECOND)
    assert told.take() == [(0, CALLER, {0: PCMU, 111: opus, 8: PCMA}, ())]


def test_the_end_of_a_call_is_the_end_of_its_flows():
    registry, told, claims = one_call()
    told.new = [flow(0, A, B)]
    claims.turn(NOW)
    told.take()
    registry.release(0, NOW + SECOND)
    claims.turn(NOW + SECOND + GRACE // 2)
    assert told.take() == []
    claims.turn(NOW + SECOND + GRACE + CONFIRMED_EVERY)
    assert told.take() == [(0, None)]


def test_ports_that_another_call_takes_over_are_that_calls():
    registry, told, claims = one_call()
    told.new = [flow(0, A, B)]
    claims.turn(NOW)
    told.take()
    for side, where in ((Side.CALLER, A), (Side.CALLEE, B)):
        newer = endpoint(where, side, call=9, since=NOW + SECOND)
        registry.announce(newer, newer.endpoint)
    registry.release(0, NOW + SECOND)
    registry.forget(0)
    claims.turn(NOW + 2 * SECOND)
    assert [said[:2] for said in told.take()] == [(0, None), (0, Source(9, Side.CALLER, 0))]


def test_keys_come_with_encrypted_media_and_without_them_it_waits():
    _, told, claims = one_call(
        endpoint(A, Side.CALLER, encrypted=True, crypto=(KEY,)), endpoint(B, Side.CALLEE, encrypted=True, dtls=True)
    )
    told.new = [flow(0, A, B), flow(1, B, A)]
    claims.turn(NOW)
    assert told.take() == [(0, CALLER, {0: PCMU}, (KEY,))]


def test_numbers_of_flows_that_are_gone_may_be_others():
    _, told, claims = one_call()
    told.new = [flow(0, A, B)]
    claims.turn(NOW)
    told.gone, told.new = [0], [flow(0, B, A, NOW + SECOND)]
    told.take()
    claims.turn(NOW + SECOND)
    assert [said[:2] for said in told.take()] == [(0, CALLEE)]


def test_media_that_is_not_wanted_is_let_go():
    registry, told, _ = one_call(endpoint(A, Side.CALLER), endpoint(B, Side.CALLEE, media="video"))
    claims = ForwardClaims(registry, told, lambda each: each.media == "audio")
    told.new = [flow(0, A, B), flow(1, B, A)]
    for second in range((UNCLAIMED + CONFIRMED_EVERY) // SECOND + 2):
        claims.turn(NOW + second * SECOND)
    assert [said[:2] for said in told.take()] == [(1, CALLEE), (0, None)]


def test_media_of_a_call_that_is_over_stays_for_a_session_that_is_late():
    late = {0}
    registry, told, _ = one_call()
    claims = ForwardClaims(registry, told, lingers=late.__contains__)
    told.new = [flow(0, A, B), flow(1, B, A)]
    claims.turn(NOW)
    told.take()
    registry.forget(0)
    claims.turn(NOW + 5 * SECOND)
    assert told.take() == []
    late.clear()
    claims.turn(NOW + 10 * SECOND)
    assert told.take() == [(0, None), (1, None)]


def test_media_of_a_call_that_is_over_gives_way_to_a_new_call_at_once():
    registry, told, _ = one_call()
    claims = ForwardClaims(registry, told, lingers=lambda _: True)
    told.new = [flow(0, A, B)]
    claims.turn(NOW)
    registry.forget(0)
    for each in (endpoint(A, Side.CALLER, call=1), endpoint(B, Side.CALLEE, call=1)):
        registry.announce(each, each.endpoint)
    told.take()
    claims.turn(NOW + 2 * SECOND)
    assert [said[:2] for said in told.take()] == [(0, None), (0, Source(1, Side.CALLER, 0))]
