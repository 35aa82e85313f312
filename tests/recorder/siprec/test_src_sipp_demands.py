"""Whole recording sessions of our client with sipp that demands something: who we are, another interval between
refreshes, refreshes, acknowledged provisional responses.

What sipp's ports got is, packet by packet, what was said in the capture."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from recorder.siprec.control import EventKind
from tests.siprec_peers import recording_server
from tests.siprec_scenarios import REMEMBER, TAG, SippServer, receive, succeed, wait
from tests.siprec_whole import Client, Sink, check, said, server_table, settings_of

pytestmark = [
    pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed") for name in ("sipp", "tshark")
]
SPEED = 2.0
SLOWLY = 0.6
"""The call lasts 7 s: after 5 of them is the refresh that is due within 10, the shortest interval that is heeded."""
SLOWEST = 0.4
"""Nearly 11 s: after 6.7 of them a session that nobody has refreshed is over."""
FIRST = 'realm="there", nonce="n1", qop="auth", algorithm=MD5'
STALE = 'realm="there", nonce="n2", qop="auth", stale=true'
SOON = "Require: timer\nSession-Expires: 10;refresher={}\n"
HEADERS = {401: ("WWW-Authenticate", b"\r\nAuthorization: "), 407: ("Proxy-Authenticate", b"\r\nProxy-Authorization: ")}


def password(directory: Path) -> dict[str, str]:
    file = directory / "password"
    file.write_text("secret\n")
    file.chmod(0o600)
    return {"user": "src", "password_file": str(file)}


def checked(method: str, right: str = "right") -> list[str]:
    """Take a request whose credentials must be right: else the scenario stays where it is, and fails."""
    verify = f'<verifyauth assign_to="{right}" username="src" password="secret"/>'
    return [
        f'<recv request="{method}" rrs="true"><action>{verify}</action></recv>',
        f'<nop test="{right}" next="{method}"/>',
        receive("NOTHING"),
        f'<label id="{method}"/>',
    ]


def test_we_say_who_we_are_also_when_the_nonce_is_stale(tmp_path: Path):
    """401 at the INVITE; at the update and the BYE another nonce, the one before is too old."""

    async def run() -> None:
        with Sink() as sink:
            server = SippServer(sink.ports)
            stale = f"WWW-Authenticate: Digest {STALE}\n"
            steps = [
                *server.refuse("401 Unauthorized", f"WWW-Authenticate: Digest {FIRST}\n"),
                *checked("INVITE"),
                server.answer("200 OK", server.description(), tag=TAG),
                receive("ACK"),
                receive("UPDATE"),
                server.answer("401 Unauthorized", more=stale),
                *checked("UPDATE"),
                server.answer("200 OK"),
                receive("BYE"),
                server.answer("401 Unauthorized", more=stale),
                *checked("BYE"),
                server.answer("200 OK"),
            ]
            async with recording_server(tmp_path, server, steps) as peer:
                table = server_table("a", peer.uri, **password(tmp_path))
                client = Client(tmp_path, settings_of(["a"], table), speed=SPEED)
                await client.run()
            await check(client, sink)
            nonces = [re.findall(rb'nonce="(n\d)"', data) for data in client.sent("UPDATE")]
            assert nonces[-1] == [b"n2"]
            assert all(b"secret" not in data for wire in client.wires for _, data in wire.sent)

    asyncio.run(run())


@pytest.mark.parametrize("status", [401, 407])
def test_a_server_that_asks_again_and_again_gives_way_to_the_next(tmp_path: Path, status: int):
    """It takes no answer of ours: the password is wrong, or it is broken."""

    async def run() -> None:
        name, answered = HEADERS[status]
        with Sink() as sink:
            server = SippServer(sink.ports)
            refused = server.refuse(f"{status} Say who", f"{name}: Digest {FIRST}\n")
            async with (
                recording_server(tmp_path, server, [*refused, *refused]) as deaf,
                recording_server(tmp_path, server, [*server.accept(), *server.updated(), *server.end()]) as peer,
            ):
                tables = server_table("a", deaf.uri, **password(tmp_path)) + server_table("b", peer.uri)
                client = Client(tmp_path, settings_of(["a", "b"], tables), speed=SPEED)
                await client.run()
            await check(client, sink)
            assert sum(answered in data for data in client.sent("INVITE")) == 1
            assert [event.peer for event in client.told(EventKind.START)] == [peer.uri]

    asyncio.run(run())


def test_an_interval_that_is_too_small_is_made_larger_and_the_session_refreshed_by_us(tmp_path: Path):
    """422 with Min-SE; then we are the refresher, by UPDATE."""

    async def run() -> None:
        with Sink() as sink:
            server = SippServer(sink.ports)
            steps = [
                *server.refuse("422 Session Interval Too Small", "Min-SE: 120\n"),
                *server.accept(SOON.format("uac")),
                *server.updated(SOON.format("uac")),
                *server.updated(SOON.format("uac")),
                *server.end(),
            ]
            async with recording_server(tmp_path, server, steps) as peer:
                client = Client(
                    tmp_path, settings_of(["a"], server_table("a", peer.uri), "session_expires = 90"), speed=SLOWLY
                )
                await client.run()
            await check(client, sink)
            first, second = client.sent("INVITE")[0], client.sent("INVITE")[-1]
            assert b"\r\nSession-Expires: 90\r\n" in first
            assert b"\r\nSession-Expires: 120\r\nMin-SE: 120\r\n" in second
            assert b"refresher=uac" in client.sent("UPDATE")[0]

    asyncio.run(run())


def test_a_server_refreshes_the_session(tmp_path: Path):
    async def run() -> None:
        with Sink() as sink:
            server = SippServer(sink.ports)
            refresh = server.ask("UPDATE", 1, more="Supported: timer\nSession-Expires: 90;refresher=uac\n")
            steps = [
                *server.accept(SOON.format("uas")),
                wait(4000),
                refresh,
                succeed(),
                *server.updated(),
                *server.end(),
            ]
            async with recording_server(tmp_path, server, steps) as peer:
                client = Client(tmp_path, settings_of(["a"], server_table("a", peer.uri)), speed=SLOWLY)
                await client.run()
            await check(client, sink)
            assert client.told(EventKind.FAILOVER) == []

    asyncio.run(run())


def test_a_server_that_should_refresh_and_does_not_is_left(tmp_path: Path):
    """BYE to it, and the session goes on at the next; nothing of the call is missing at both together."""

    async def run() -> None:
        with Sink() as before, Sink() as after:
            dead, alive = SippServer(before.ports), SippServer(after.ports)
            steps = [*dead.accept(SOON.format("uas")), *dead.end()]
            async with (
                recording_server(tmp_path, dead, steps) as first,
                recording_server(tmp_path, alive, [*alive.accept(), *alive.updated(), *alive.end()]) as second,
            ):
                tables = server_table("a", first.uri) + server_table("b", second.uri)
                client = Client(tmp_path, settings_of(["a", "b"], tables), speed=SLOWEST)
                await client.run()
            await check(client)
            (moved,) = client.told(EventKind.FAILOVER)
            assert moved.text == "the session timer ran out"
            for line in range(2):
                whole = [row.payload for row in said(client.capture)[line]]
                there = [row.payload for row in before.heard(line)]
                rest = [row.payload for row in after.heard(line)]
                assert 0 < len(there) < len(whole)
                assert there == whole[: len(there)]
                assert rest == whole[-len(rest) :]
                assert len(there) + len(rest) >= len(whole)

    asyncio.run(run())


@pytest.mark.parametrize("described", [False, True])
def test_a_provisional_response_is_acknowledged_that_wants_it(tmp_path: Path, described: bool):
    """183 with 100rel, with the answer in it or without; PRACK; 200."""

    async def run() -> None:
        with Sink() as sink:
            server = SippServer(sink.ports)
            reliable = "Require: 100rel\nRSeq: 17\n"
            answer = server.description()
            early = {"body": answer} if described else {}
            steps = [
                REMEMBER,
                server.answer("183 Session Progress", tag=TAG, more=reliable, **early),
                receive("PRACK"),
                server.answer("200 OK"),
                wait(200),
                server.late("200 OK", answer),
                receive("ACK"),
                *server.updated(),
                *server.end(),
            ]
            async with recording_server(tmp_path, server, steps) as peer:
                client = Client(tmp_path, settings_of(["a"], server_table("a", peer.uri)), speed=SPEED)
                await client.run()
            await check(client, sink)
            assert re.search(rb"\r\nRAck: 17 \d+ INVITE\r\n", client.sent("PRACK")[0])
            assert b"100rel" in client.sent("INVITE")[0]

    asyncio.run(run())
