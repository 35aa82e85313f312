"""Server transactions, state by state (RFC 3261, figures 7 and 8; RFC 6026, figure 7)."""

from dataclasses import dataclass, field

import pytest

from recorder.model import Transport
from recorder.sip_ua.layer import Layer
from recorder.sip_ua.server_transaction import InviteServer, PlainServer, ServerState, ServerTransaction
from tests.sip_messages import hop


@dataclass
class Bench:
    """One transaction, its clock, and what it sent."""

    invite: bool = True
    transport: Transport = Transport.UDP
    layer: Layer = field(default_factory=Layer)
    gone: list[bool] = field(default_factory=list)
    sent: list[tuple[float, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        kind = InviteServer if self.invite else PlainServer
        self.transaction: ServerTransaction = kind(self.layer, hop(self.transport), lambda: self.gone.append(True))

    def collect(self, now: float) -> None:
        while self.layer.outbox:
            self.sent.append((now, self.layer.outbox.popleft().data))

    def until(self, end: float) -> "Bench":
        while (when := self.layer.timers.next_timeout()) is not None and when <= end:
            self.layer.timers.run(when)
            self.collect(when)
        return self

    def answer(self, status: int, at: float) -> "Bench":
        self.until(at).transaction.respond(status, str(status).encode(), at)
        self.collect(at)
        return self

    def again(self, at: float) -> "Bench":
        self.until(at).transaction.repeated(at)
        self.collect(at)
        return self

    def ack(self, at: float) -> "Bench":
        self.until(at).transaction.acknowledged(at)
        self.collect(at)
        return self

    @property
    def state(self) -> ServerState:
        return self.transaction.state


def test_invite_proceeding_repeats_the_last_provisional_response():
    bench = Bench().again(0.1).answer(100, 0.2).again(0.5).answer(180, 0.6).again(0.7)
    assert [data for _, data in bench.sent] == [b"100", b"100", b"180", b"180"]
    assert bench.state is ServerState.PROCEEDING
    assert bench.until(1000).state is ServerState.PROCEEDING


def test_invite_completed_retransmits_by_timer_g_until_timer_h():
    bench = Bench().answer(486, 0).until(100)
    assert [at for at, _ in bench.sent] == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert bench.state is ServerState.TERMINATED
    assert bench.gone == [True]


def test_invite_completed_repeats_its_answer_and_none_other():
    bench = Bench().answer(486, 0).again(0.1).answer(200, 0.2).answer(503, 0.3)
    assert [data for _, data in bench.sent] == [b"486", b"486"]


def test_invite_completed_over_tcp_waits_for_its_ack_in_silence():
    bench = Bench(transport=Transport.TCP).answer(486, 0)
    assert bench.until(31.9).state is ServerState.COMPLETED
    assert bench.until(32).state is ServerState.TERMINATED
    assert len(bench.sent) == 1


def test_invite_confirmed_absorbs_copies_until_timer_i():
    bench = Bench().answer(486, 0).ack(0.2).again(0.3).ack(0.4)
    assert bench.state is ServerState.CONFIRMED
    assert len(bench.sent) == 1
    assert bench.until(5.1).state is ServerState.CONFIRMED
    assert bench.until(5.2).state is ServerState.TERMINATED


def test_invite_over_tcp_is_over_with_its_ack():
    bench = Bench(transport=Transport.TCP).answer(486, 0).ack(0.2)
    assert bench.state is ServerState.TERMINATED
    assert bench.layer.timers.next_timeout() is None


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_invite_accepted_absorbs_copies_and_lets_its_user_repeat_the_2xx_until_timer_l(transport: Transport):
    bench = Bench(transport=transport).answer(100, 0).answer(200, 1).again(1.1).ack(1.2).answer(486, 1.3).answer(200, 2)
    assert [data for _, data in bench.sent] == [b"100", b"200", b"200"]
    assert bench.until(32.9).state is ServerState.ACCEPTED
    assert bench.until(33).state is ServerState.TERMINATED


def test_other_requests_say_nothing_before_they_are_answered():
    bench = Bench(invite=False).again(0.1)
    assert bench.sent == []
    assert bench.state is ServerState.TRYING


def test_other_requests_repeat_what_was_said_last_until_timer_j():
    bench = Bench(invite=False).answer(100, 0).again(0.5).answer(200, 1).again(1.5).answer(500, 2).answer(180, 2)
    assert [data for _, data in bench.sent] == [b"100", b"100", b"200", b"200"]
    assert bench.until(32.9).state is ServerState.COMPLETED
    assert bench.until(33).state is ServerState.TERMINATED
    assert bench.gone == [True]


def test_other_requests_over_tcp_are_over_with_the_answer():
    bench = Bench(invite=False, transport=Transport.TCP).answer(100, 0)
    assert bench.state is ServerState.PROCEEDING
    assert bench.answer(200, 1).state is ServerState.TERMINATED
    assert bench.layer.timers.next_timeout() is None
