"""Whole recording sessions of our client with sipp, by every way that leads there: TLS, a proxy, redirections.

What sipp's ports got is, packet by packet, what was said in the capture."""

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from recorder.model import Transport
from recorder.siprec.control import EventKind
from tests.certificates import authority
from tests.sip_proxy import Proxy
from tests.siprec_peers import recording_server, set_aside, tls_files, tls_front, tls_settings
from tests.siprec_scenarios import SippServer
from tests.siprec_whole import Client, Sink, check, server_table, settings_of

pytestmark = [
    pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed") for name in ("sipp", "tshark")
]
needs_socat = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
needs_kamailio = pytest.mark.skipif(shutil.which("kamailio") is None, reason="kamailio is not installed")
SPEED = 2.0
"""Sessions take their time all the same: the capture has a call of 4 s."""


def secure(port: int) -> str:
    return f"sip:rec@127.0.0.1:{port};transport=tls"


def whole(server: SippServer) -> list[str]:
    """A session in which the client's last update is answered."""
    return [*server.accept(), *server.updated(), *server.end()]


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_a_whole_session_in_the_clear(tmp_path: Path, transport: str):
    async def run() -> None:
        with Sink() as sink:
            server = SippServer(sink.ports)
            async with recording_server(tmp_path, server, whole(server), transport) as peer:
                client = Client(tmp_path, settings_of(["a"], server_table("a", peer.uri)), speed=SPEED)
                await client.run()
            await check(client, sink)

    asyncio.run(run())


@needs_socat
@pytest.mark.parametrize("mutual", [False, True])
def test_a_whole_session_over_tls(tmp_path: Path, mutual: bool):
    async def run() -> None:
        made = authority(tmp_path / "tls")
        port = set_aside()
        with Sink() as sink:
            server = SippServer(sink.ports, f"sip:srs@127.0.0.1:{port};transport=tls")
            async with (
                recording_server(tmp_path, server, whole(server), "t1") as peer,
                tls_front(tmp_path, port, peer.port, tls_files(made, "srs"), mutual=mutual),
            ):
                ours = tls_settings(tls_files(made, "src"), own=mutual)
                client = Client(tmp_path, settings_of(["a"], server_table("a", secure(port)), *ours), speed=SPEED)
                await client.run()
            await check(client, sink)
            assert {way for wire in client.wires for way in wire.sent_by("INVITE")} == {Transport.TLS}

    asyncio.run(run())


@needs_socat
def test_a_server_that_wants_a_certificate_is_left_by_a_client_without_one(tmp_path: Path):
    async def run() -> None:
        made = authority(tmp_path / "tls")
        port = set_aside()
        with Sink() as sink:
            server = SippServer(sink.ports)
            async with (
                recording_server(tmp_path, server, whole(server)) as next_one,
                tls_front(tmp_path, port, set_aside(), tls_files(made, "srs"), mutual=True),
            ):
                tables = server_table("a", secure(port)) + server_table("b", next_one.uri)
                ours = tls_settings(tls_files(made, "src"), own=False)
                client = Client(tmp_path, settings_of(["a", "b"], tables, *ours), speed=SPEED)
                await client.run()
            await check(client, sink)
            assert [event.peer for event in client.told(EventKind.START)] == [next_one.uri]

    asyncio.run(run())


@pytest.mark.parametrize("there", ["u1", "t1"])
def test_a_redirection_leads_to_another_server_and_another_transport(tmp_path: Path, there: str):
    async def run() -> None:
        with Sink() as sink:
            server = SippServer(sink.ports)
            async with recording_server(tmp_path, server, whole(server), there) as second:
                moved = SippServer(contact=second.uri)
                async with recording_server(tmp_path, moved, moved.refuse("302 Moved Temporarily")) as first:
                    client = Client(tmp_path, settings_of(["a"], server_table("a", first.uri)), speed=SPEED)
                    await client.run()
            await check(client, sink)
            requests = {data.split(b" ")[1].decode() for data in client.sent("INVITE")}
            assert {first.uri, second.uri} <= requests

    asyncio.run(run())


@needs_socat
def test_a_redirection_leads_to_tls(tmp_path: Path):
    async def run() -> None:
        made = authority(tmp_path / "tls")
        port = set_aside()
        with Sink() as sink:
            server = SippServer(sink.ports, f"sip:srs@127.0.0.1:{port};transport=tls")
            moved = SippServer(contact=secure(port))
            async with (
                recording_server(tmp_path, server, whole(server), "t1") as second,
                recording_server(tmp_path, moved, moved.refuse("302 Moved Temporarily")) as first,
                tls_front(tmp_path, port, second.port, tls_files(made, "srs"), mutual=True),
            ):
                ours = tls_settings(tls_files(made, "src"))
                client = Client(tmp_path, settings_of(["a"], server_table("a", first.uri), *ours), speed=SPEED)
                await client.run()
            await check(client, sink)
            assert Transport.TLS in {way for wire in client.wires for way in wire.sent_by("INVITE")}

    asyncio.run(run())


@needs_socat
def test_no_redirection_leads_from_tls_into_the_clear(tmp_path: Path):
    """Keys of the media would go there for anybody to read."""

    async def run() -> None:
        made = authority(tmp_path / "tls")
        port = set_aside()
        with Sink() as sink:
            server = SippServer(sink.ports)
            async with recording_server(tmp_path, server, whole(server)) as next_one:
                moved = SippServer(contact=next_one.uri)
                async with (
                    recording_server(tmp_path, moved, moved.refuse("302 Moved Temporarily"), "t1") as first,
                    tls_front(tmp_path, port, first.port, tls_files(made, "srs"), mutual=True),
                ):
                    tables = server_table("a", secure(port), media="savp") + server_table("b", next_one.uri)
                    ours = tls_settings(tls_files(made, "src"))
                    client = Client(tmp_path, settings_of(["a", "b"], tables, *ours), speed=SPEED)
                    await client.run()
            await check(client, sink)
            in_the_clear = [
                data
                for wire in client.wires
                for way, data in wire.sent
                if way is not Transport.TLS and b"INVITE" in data
            ]
            assert in_the_clear
            assert all(b"a=crypto" not in data for data in in_the_clear)
            # "b" itself is in the clear, as its settings say.
            assert [event.peer for event in client.told(EventKind.START)] == [next_one.uri]

    asyncio.run(run())


@needs_kamailio
@pytest.mark.parametrize("way", [Transport.UDP, Transport.TCP, Transport.TLS])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_proxy_stays_in_the_session(tmp_path: Path, way: Transport, guarded: bool):
    """It records its route; where it guards what is behind, it asks who we are in each request (407)."""

    async def run() -> None:
        made = authority(tmp_path / "tls")
        (tmp_path / "password").write_text("secret\n")
        (tmp_path / "password").chmod(0o600)
        proxy = Proxy(tmp_path, "SHA-256", tls_files(made, "proxy"))
        with Sink() as sink:
            server = SippServer(sink.ports)
            async with AsyncExitStack() as stack:
                peer = await stack.enter_async_context(recording_server(tmp_path, server, whole(server)))
                await proxy.start()
                stack.push_async_callback(proxy.stop)
                table = server_table(
                    "a", peer.uri, via=f"{proxy.uri(way)};lr", user="guarded-auth", password_file=f"{tmp_path}/password"
                )
                name = "guarded-auth" if guarded else "src"
                ours = (f'identity = "<sip:{name}@example.org>"', *tls_settings(tls_files(made, "src")))
                client = Client(tmp_path, settings_of(["a"], table, *ours), speed=SPEED)
                await client.run()
            await check(client, sink)
            for method in ("INVITE", "UPDATE", "BYE"):
                asked = [b"\r\nProxy-Authorization: " in data for data in client.sent(method)]
                assert any(asked) is guarded
            assert all(b"\r\nRoute: " in data for data in client.sent("BYE"))

    asyncio.run(run())
