"""Client transactions, state by state (RFC 3261, figures 5 and 6; RFC 6026, figure 5)."""

from dataclasses import dataclass, field

import pytest

from recorder.model import Transport
from recorder.sip_ua.client_transaction import ClientState, ClientTransaction, InviteClient, PlainClient
from recorder.sip_ua.layer import Failure, FailureKind, Layer, Received, ResponseUser
from tests.sip_messages import VIA, hop, parsed, received, request, response

ROUTE = ("<sip:proxy;lr>",)


@dataclass
class Bench:
    """One transaction, its clock, and what it said."""

    method: str = "INVITE"
    transport: Transport = Transport.UDP
    layer: Layer = field(default_factory=Layer)
    statuses: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    gone: list[bool] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        user = ResponseUser(self._on_response, lambda failure, now: self.failures.append(failure))
        kind = InviteClient if self.method == "INVITE" else PlainClient
        self.transaction: ClientTransaction = kind(
            self.layer,
            request(self.method, routes=ROUTE),
            VIA,
            hop(self.transport),
            user,
            lambda: self.gone.append(True),
        )
        self.transaction.start(0.0)
        self.collect(0.0)

    def _on_response(self, received: Received, now: float) -> None:
        self.statuses.append(received.message.status or 0)

    def collect(self, now: float) -> None:
        while self.layer.outbox:
            send = self.layer.outbox.popleft()
            self.sent_at.append(now)
            self.sent.append(parsed(send.data).method or "")

    def until(self, end: float) -> "Bench":
        while (when := self.layer.timers.next_timeout()) is not None and when <= end:
            self.layer.timers.run(when)
            self.collect(when)
        return self

    def get(self, status: int, at: float, **options: str) -> "Bench":
        self.until(at)
        self.transaction.receive(received(response(status, self.method, **options), self.transport), at)
        self.collect(at)
        return self

    @property
    def state(self) -> ClientState:
        return self.transaction.state


def test_invite_calling_retransmits_by_timer_a_until_timer_b():
    bench = Bench().until(100)
    assert bench.sent_at == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert bench.failures == [Failure(FailureKind.TIMEOUT, "no response")]
    assert bench.state is ClientState.TERMINATED
    assert bench.gone == [True]


def test_invite_over_tcp_is_sent_once_and_gives_up_by_timer_b():
    bench = Bench(transport=Transport.TCP)
    assert bench.until(31.9).state is ClientState.CALLING
    assert bench.until(32).state is ClientState.TERMINATED
    assert bench.sent_at == [0]


def test_invite_proceeding_waits_without_retransmission_and_without_limit():
    bench = Bench().get(100, 0.6).get(180, 5).until(1000)
    assert bench.state is ClientState.PROCEEDING
    assert bench.statuses == [100, 180]
    assert bench.sent_at == [0, 0.5]


def test_invite_completed_acknowledges_each_copy_and_ends_by_timer_d():
    bench = Bench().get(100, 0.1).get(486, 1).get(486, 2).get(404, 3).get(200, 4).get(180, 5)
    assert bench.statuses == [100, 486]
    assert bench.sent == ["INVITE", "ACK", "ACK", "ACK"]
    assert bench.until(32.9).state is ClientState.COMPLETED
    assert bench.until(33).state is ClientState.TERMINATED
    assert bench.gone == [True]


def test_invite_over_tcp_is_over_with_its_ack():
    bench = Bench(transport=Transport.TCP).get(302, 1)
    assert bench.sent == ["INVITE", "ACK"]
    assert bench.state is ClientState.TERMINATED
    assert bench.layer.timers.next_timeout() is None


@pytest.mark.parametrize("provisional", [True, False])
def test_invite_accepted_passes_every_2xx_up_until_timer_m(provisional: bool):
    bench = Bench()
    if provisional:
        bench.get(180, 0.1)
    bench.get(200, 0.2).get(200, 0.7).get(200, 1.2, tag="other").get(486, 1.3).get(180, 1.4)
    assert bench.statuses[-3:] == [200, 200, 200]
    assert bench.sent == ["INVITE"]
    assert bench.until(32.1).state is ClientState.ACCEPTED
    assert bench.until(32.2).state is ClientState.TERMINATED


def test_the_ack_of_a_refusal_is_the_invites_own():
    bench = Bench()
    bench.layer.outbox.clear()
    bench.transaction.receive(received(response(486, tag="there")), 0.1)
    ack = parsed(bench.layer.outbox[0].data)
    assert ack.method == "ACK"
    assert ack.request_uri == "sip:b@10.0.0.2"
    assert ack.get("via") == VIA
    assert ack.get("to") == "<sip:b@10.0.0.2>;tag=there"
    assert ack.get("from") == "<sip:a@10.0.0.1>;tag=a"
    assert ack.cseq == (1, "ACK")
    assert ack.getlist("route") == list(ROUTE)


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
@pytest.mark.parametrize("provisional", [True, False])
def test_a_transport_failure_ends_it_and_is_told_once(method: str, provisional: bool):
    bench = Bench(method, Transport.TCP)
    if provisional:
        bench.get(100, 0.1)
    bench.transaction.failed("refused", 0.2)
    bench.transaction.failed("refused", 0.3)
    assert bench.failures == [Failure(FailureKind.TRANSPORT, "refused")]
    assert bench.state is ClientState.TERMINATED
    assert bench.until(100).failures == [Failure(FailureKind.TRANSPORT, "refused")]


def test_an_ack_that_cannot_be_sent_ends_the_transaction_in_silence():
    bench = Bench().get(486, 0.1)
    bench.transaction.failed("unreachable", 0.2)
    assert bench.state is ClientState.TERMINATED
    assert not bench.failures


def test_an_accepted_invite_does_not_mind_a_lost_connection():
    bench = Bench(transport=Transport.TCP).get(200, 0.1)
    bench.transaction.failed("reset", 0.2)
    assert bench.state is ClientState.ACCEPTED


def test_other_requests_retransmit_by_timer_e_until_timer_f():
    bench = Bench("OPTIONS").until(100)
    assert bench.sent_at == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert bench.failures == [Failure(FailureKind.TIMEOUT, "no response")]


def test_other_requests_retransmit_by_t2_once_they_proceed_and_still_give_up():
    bench = Bench("OPTIONS").get(100, 0.6)
    bench.until(100)
    assert bench.sent_at == [0, 0.5, 1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]
    assert bench.statuses == [100]
    assert bench.failures


def test_other_requests_absorb_copies_of_the_response_until_timer_k():
    bench = Bench("BYE").get(200, 0.2).get(200, 0.7)
    assert bench.statuses == [200]
    assert bench.until(5.1).state is ClientState.COMPLETED
    assert bench.until(5.2).state is ClientState.TERMINATED
    assert bench.sent_at == [0]


def test_other_requests_over_tcp_are_over_with_the_response():
    bench = Bench("BYE", Transport.TCP).get(100, 0.1).get(500, 0.2)
    assert bench.statuses == [100, 500]
    assert bench.state is ClientState.TERMINATED
    assert bench.layer.timers.next_timeout() is None


def test_a_hushed_invite_is_sent_no_more_but_still_takes_an_answer():
    bench = Bench()
    bench.transaction.hush()
    bench.until(10).get(200, 11)
    assert bench.sent_at == [0]
    assert bench.statuses == [200]
