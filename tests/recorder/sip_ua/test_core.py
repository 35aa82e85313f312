"""The core among strangers: requests that are wrong, repeated, merged, looped, too many, or no SIP at all."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.sip import parse_message
from recorder.model import Transport
from recorder.sip_ua.agent import SipAgent
from recorder.sip_ua.api import Body, Incoming, NewSession, Peer, RefusedError, Reply
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.core import Core
from tests.sip_messages import OURS, THEIRS, hop
from tests.sip_network import MemoryTransports, Network, locate, random, run
from tests.sip_peer import RawPeer

US, THEM = "10.0.0.1:5060", "10.0.0.2:5060"
SDP = "v=0\r\no=p 1 1 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n"
BODY = Body("application/sdp", SDP.encode())


class Bench:
    def __init__(self, **config: object) -> None:
        self.network = Network()
        self.admitted: Reply | None = None
        self.agent = SipAgent(
            MemoryTransports(self.network, US),
            locate,
            AgentConfig(**config),
            random=random(),
            admit=lambda message, peer: self.admitted or Peer(peer.address, peer.transport, user="alice"),
        )
        self.peer = RawPeer(self.network, THEM)
        self.invites: list[Incoming] = []
        self.agent.on_invite = self.invites.append


@pytest.mark.parametrize(
    ("status", "method", "changes"),
    [
        (400, "OPTIONS", {"drop": ["From"]}),
        (400, "OPTIONS", {"drop": ["Call-ID"]}),
        (400, "OPTIONS", {"drop": ["CSeq"]}),
        (400, "OPTIONS", {"drop": ["To"]}),
        (400, "OPTIONS", {"headers": ["CSeq: 7 INVITE"], "drop": ["CSeq"]}),
        (400, "OPTIONS", {"headers": ["To: <sip:b@c>"]}),
        (400, "OPTIONS", {"headers": ["Content-Length: 7"]}),
        (400, "OPTIONS", {"uri": "sip:a b@c"}),
        (400, "OPTIONS", {"headers": ["Content-Type: a/b", "Content-Type: c/d"]}),
        (200, "OPTIONS", {"headers": ["Content-Type: a/b", "Content-Type:"]}),
        (405, "SUBSCRIBE", {}),
        (405, "NEWMETHOD", {}),
        (405, "REGISTER", {}),
        (481, "BYE", {}),
        (481, "BYE", {"headers": ["cseq: 7 INVITE"], "drop": ["CSeq"]}),
        (481, "INFO", {}),
        (481, "BYE", {"to_value": "<sip:us@here>;tag=old"}),
        (481, "CANCEL", {}),
        (416, "OPTIONS", {"uri": "nobody:knows"}),
        (415, "INVITE", {"headers": ["Content-Encoding: gzip"]}),
        (420, "INVITE", {"headers": ["Require: siprec, nothing"]}),
        (200, "OPTIONS", {"uri": "sips:a@b"}),
        (200, "OPTIONS", {"drop": ["Max-Forwards", "Contact"]}),
    ],
)
def test_what_a_request_outside_of_a_session_is_answered(status: int, method: str, changes: dict):
    async def job() -> None:
        bench = Bench()
        bench.peer.ask(US, method, 1, *changes.pop("headers", []), **changes)
        response = await bench.peer.get(timeout=5)
        assert response.status == status
        assert response.get("via") is not None
        assert "rport=5060" in (response.get("via") or "")
        if status == 405:
            assert "INVITE" in response.getlist("allow")
        if status == 420:
            assert response.getlist("unsupported") == ["nothing"]
        await bench.agent.close()

    run(job())


def test_another_version_of_sip_is_refused():
    async def job() -> None:
        bench = Bench()
        text = f"OPTIONS sip:us@{US} SIP/7.0\r\nVia: SIP/7.0/UDP {THEM};branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n"
        bench.peer.send(US, text + "To: <sip:us@here>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n")
        assert (await bench.peer.get()).status == 505
        await bench.agent.close()

    run(job())


def test_responses_go_back_where_the_request_came_from():
    async def job() -> None:
        bench = Bench()
        via = "Via: SIP/2.0/UDP 192.0.2.9:7777;rport;branch=z9hG4bKnat"
        text = f"OPTIONS sip:us@{US} SIP/2.0\r\n{via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:us@here>\r\nCall-ID: c\r\n"
        bench.peer.send(US, text + "CSeq: 1 OPTIONS\r\n\r\n")
        response = await bench.peer.get("200")
        assert response.vias[0].received == "10.0.0.2"
        assert response.vias[0].rport == 5060
        assert response.vias[0].host == "192.0.2.9"
        await bench.agent.close()

    run(job())


def test_a_request_that_came_by_two_ways_is_answered_482():
    async def job() -> None:
        bench = Bench()
        bench.peer.ask(US, "INVITE", 1, body=SDP, branch="z9hG4bKone")
        await bench.peer.get("100")
        bench.peer.ask(US, "INVITE", 1, body=SDP, branch="z9hG4bKtwo")
        assert (await bench.peer.get()).status == 482
        assert len(bench.invites) == 1
        await bench.agent.close()

    run(job())


def test_a_request_of_ours_that_comes_back_is_answered_482():
    async def job() -> None:
        bench = Bench()
        pinging = asyncio.ensure_future(bench.agent.ping(f"sip:{US}"))
        response = await pinging
        assert response is not None
        assert response.status == 482
        await bench.agent.close()

    run(job())


def test_a_retransmitted_invite_is_told_once_and_answered_again():
    async def job() -> None:
        bench = Bench()
        for _ in range(3):
            bench.peer.ask(US, "INVITE", 1, body=SDP, branch="z9hG4bKone")
            assert (await bench.peer.get()).status == 100
        assert len(bench.invites) == 1
        bench.invites[0].refuse(603)
        assert (await bench.peer.get()).status == 603
        bench.peer.ask(US, "INVITE", 1, body=SDP, branch="z9hG4bKone")
        assert (await bench.peer.get()).status == 603
        bench.peer.ask(US, "ACK", 1, branch="z9hG4bKone")
        assert await bench.peer.quiet(40, "603")
        await bench.agent.close()

    run(job())


def test_peers_of_rfc_2543_have_transactions_too():
    async def job() -> None:
        bench = Bench()
        for _ in range(2):
            bench.peer.ask(US, "INVITE", 1, body=SDP, branch="1")
            assert (await bench.peer.get()).status == 100
        assert len(bench.invites) == 1
        bench.peer.ask(US, "CANCEL", 1, branch="1")
        assert {(await bench.peer.get()).status, (await bench.peer.get()).status} == {200, 487}
        bench.peer.ask(US, "ACK", 1, branch="1")
        assert await bench.peer.quiet(5, "487")
        await bench.agent.close()

    run(job())


def test_whom_we_do_not_admit_is_refused_and_whom_we_do_has_a_name():
    async def job() -> None:
        bench = Bench()
        bench.admitted = Reply(401, headers=[("WWW-Authenticate", 'Digest realm="r", nonce="n"')])
        bench.peer.ask(US, "INVITE", 1, body=SDP)
        refused = await bench.peer.get("401")
        assert refused.get("www-authenticate") == 'Digest realm="r", nonce="n"'
        bench.peer.ask(US, "ACK", 1, branch=refused.top_branch or "")
        assert not bench.invites
        bench.admitted = None
        bench.peer.ask(US, "INVITE", 2, body=SDP)
        await bench.peer.get("100")
        assert bench.invites[0].peer.user == "alice"
        session = bench.invites[0].accept(BODY, [("X-Ours", "1")], ["+sip.srs"], "<sip:rec@us.example>")
        answer = await bench.peer.get("200")
        assert answer.get("contact") == "<sip:spanrec@10.0.0.1:5060>;+sip.srs"
        assert answer.get("x-ours") == "1"
        assert session.local_uri == "sip:rec@us.example"
        assert session.peer.user == "alice"
        await bench.agent.close()

    run(job())


def test_a_full_agent_says_so():
    async def job() -> None:
        bench = Bench(max_sessions=1, max_transactions=4)
        bench.peer.ask(US, "INVITE", 1, body=SDP, call_id="one")
        await bench.peer.get("100")
        bench.invites[0].accept(BODY)
        await bench.peer.get("200")
        bench.peer.ask(US, "INVITE", 1, body=SDP, call_id="two")
        assert (await bench.peer.get("503")).get("retry-after") == "10"
        for number in range(8):
            bench.peer.ask(US, "OPTIONS", 1, call_id=f"o{number}")
        statuses = [(await bench.peer.get()).status for _ in range(9)]
        assert 503 in statuses
        assert len(bench.agent.core._server) <= 4
        await bench.agent.close()

    run(job())


def test_a_peer_that_floods_its_session_costs_only_that():
    async def job() -> None:
        bench = Bench(max_requests=8)
        bench.peer.ask(US, "INVITE", 1, body=SDP)
        bench.peer.ask(US, "INVITE", 1, body=SDP, call_id="other")
        await asyncio.sleep(1)
        for invite in bench.invites:
            invite.accept(BODY)
        to = {}
        for _ in range(2):
            answer = await bench.peer.get("200")
            to[answer.call_id] = answer.get("to") or ""
            bench.peer.ask(US, "ACK", 1, to_value=to[answer.call_id], call_id=answer.call_id or "")
        for number in range(2, 102):
            bench.peer.ask(US, "INVITE", number, to_value=to["peers-call"], body=SDP)
        statuses = [(await bench.peer.get()).status for _ in range(100)]
        assert statuses.count(503) > 80
        assert len(bench.agent.core._server) < 12
        bench.peer.ask(US, "OPTIONS", 2, to_value=to["other"], call_id="other")
        assert (await bench.peer.get("200")).cseq == (2, "OPTIONS")
        await bench.agent.close()

    run(job())


def test_what_our_own_side_does_wrong_is_reported_and_answered():
    failures: list[str] = []

    async def job() -> None:
        bench = Bench()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: failures.append(repr(context["exception"])))

        def fail(incoming: Incoming) -> None:
            raise KeyError("on_invite")

        bench.agent.on_invite = fail
        bench.peer.ask(US, "INVITE", 1, body=SDP)
        bench.peer.ask(US, "ACK", 1, branch=(await bench.peer.get("500")).top_branch or "")

        def offer(message: object) -> Body:
            raise KeyError("answer")

        task = asyncio.ensure_future(bench.agent.invite(NewSession(f"sip:p@{THEM}", None, answer=offer)))
        bench.peer.answer(await bench.peer.get("INVITE"), 200, body=BODY)
        await bench.peer.get("ACK")
        bench.peer.answer(await bench.peer.get("BYE"), 200)
        with pytest.raises(RefusedError, match="488"):
            await task
        task = asyncio.ensure_future(bench.agent.invite(NewSession(f"sip:p@{THEM}", BODY)))
        invite = await bench.peer.get("INVITE")
        bench.peer.answer(invite, 200, body=BODY)
        session = await task

        async def reply(message: object) -> Reply:
            raise KeyError("on_request")

        def ended(how: object) -> None:
            raise KeyError("on_end")

        session.on_request, session.on_end = reply, ended
        bench.peer.within(invite, "INFO", 1)
        assert (await bench.peer.get("500")).cseq == (1, "INFO")
        bench.peer.within(invite, "BYE", 2)
        await bench.peer.get("200")
        await bench.agent.close()

    run(job())
    assert failures == [f"KeyError('{where}')" for where in ("on_invite", "answer", "on_request", "on_end")]


def test_all_is_forgotten_in_the_end():
    async def job() -> None:
        bench = Bench(session_expires=None)
        for number in range(5):
            bench.peer.ask(US, "INVITE", 1, body=SDP, call_id=f"c{number}")
            await bench.peer.get("100")
            bench.invites[-1].accept(BODY)
            answer = await bench.peer.get("200")
            bench.peer.ask(US, "ACK", 1, to_value=answer.get("to") or "", call_id=f"c{number}")
            bench.peer.ask(US, "BYE", 2, to_value=answer.get("to") or "", call_id=f"c{number}")
            await bench.peer.get("200")
        await asyncio.sleep(60)
        core = bench.agent.core
        assert not core.sessions
        assert not core._server
        assert not core._merging
        assert not core._invites
        assert not len(core.sender)
        assert core.next_timeout() is None
        await bench.agent.close()

    run(job())


def core() -> Core:
    made = Core(AgentConfig(), lambda target: ("10.0.0.1", 5060), lambda uri, then: then([], 0.0), random())
    made.on_invite = lambda invite, now: invite.accept(BODY, (), (), "", now) and None
    return made


def feed(made: Core, data: bytes, now: float) -> None:
    """Octets of a stranger; every message that goes out must be one."""
    made.received(data, hop().flow, Peer(THEIRS, Transport.UDP), now)
    made.timeouts(now)
    while made.layer.outbox:
        assert parse_message(made.layer.outbox.popleft().data) is not None


@pytest.fixture(scope="module")
def torture() -> dict[str, bytes]:
    default = Path(__file__).resolve().parents[4] / "shared" / "standards"
    directory = Path(os.environ.get("SPANREC_STANDARDS", default)) / "rfc4475" / "raw"
    if not directory.is_dir():
        pytest.skip("the messages of RFC 4475 are not here (set SPANREC_STANDARDS)")
    return {path.stem: path.read_bytes() for path in sorted(directory.glob("*.dat"))}


def test_the_messages_of_rfc_4475_harm_nobody(torture: dict[str, bytes]):
    made = core()
    now = 0.0
    for _ in range(2):
        for data in torture.values():
            feed(made, data, now)
            now += 0.1
    made.timeouts(now)
    assert len(torture) > 40


_LINES = st.sampled_from(
    [
        "INVITE sip:us@10.0.0.1 SIP/2.0",
        "BYE sip:us@10.0.0.1 SIP/2.0",
        "ACK sip:us@10.0.0.1 SIP/2.0",
        "CANCEL sip:us@10.0.0.1 SIP/2.0",
        "SIP/2.0 200 OK",
        "SIP/2.0 183 X",
        "Via: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKa",
        "Via: SIP/2.0/UDP 10.0.0.2",
        "Via: nonsense",
        "From: <sip:a@b>;tag=1",
        'From: "',
        "To: <sip:a@b>",
        "To: <sip:a@b>;tag=2",
        "To: sip:a;tag=",
        "Call-ID: x",
        "CSeq: 1 INVITE",
        "CSeq: 1 BYE",
        "CSeq: 1 CANCEL",
        "CSeq: 4294967296 INVITE",
        "Contact: <sip:p@10.0.0.2>",
        "Contact: *",
        "Contact: <tel:1>",
        "Record-Route: <sip:p;lr>, <",
        "Require: 100rel",
        "Supported: timer",
        "Session-Expires: 90;refresher=x",
        "Content-Length: 5",
        "Content-Type: multipart/mixed",
        "\x00\xff",
        "",
    ]
)


@given(st.lists(st.lists(_LINES, max_size=14), max_size=6), st.binary(max_size=64))
def test_lines_in_any_order_harm_nobody(messages: list[list[str]], tail: bytes):
    made = core()
    for number, lines in enumerate(messages):
        feed(made, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + tail, number / 3)
    feed(made, tail, 40.0)
    made.timeouts(10000.0)


@given(st.data())
def test_good_messages_with_octets_changed_harm_nobody(data: st.DataObject):
    made = core()
    text = (
        f"INVITE sip:us@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {OURS};branch=z9hG4bKa;rport\r\nFrom: <sip:a@b>;tag=1\r\n"
        "To: <sip:us@10.0.0.1>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:a@10.0.0.2>\r\n"
        "Record-Route: <sip:r;lr>\r\nSupported: timer\r\nContent-Type: application/sdp\r\n"
        f"Content-Length: {len(SDP)}\r\n\r\n{SDP}"
    ).encode()
    for number in range(3):
        octets = bytearray(text)
        for _ in range(data.draw(st.integers(0, 6))):
            octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
        feed(made, bytes(octets), number / 2)
    made.timeouts(5000.0)
