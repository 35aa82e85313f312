"""Transports over real sockets of this machine."""

import asyncio
import os
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from capture.address import Endpoint, parse_endpoint
from recorder.model import Transport
from recorder.sip_ua import connections
from recorder.sip_ua.api import Peer
from recorder.sip_ua.listen import ListenError, parse_listen
from recorder.sip_ua.tls import TlsError, TlsFiles, names_fit
from recorder.sip_ua.transport import SipTransports, TransportOptions, open_transports
from recorder.sip_ua.wire import Flow, Target
from tests.certificates import address, authority, dns, uri
from tests.child import USER, needs_root, run


def message(body: bytes = b"") -> bytes:
    return b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def loopback(port: int, host: str = "127.0.0.1") -> Endpoint:
    found = parse_endpoint(host, port)
    assert found is not None
    return found


class Ear:
    """Collects what transports tell."""

    def __init__(self, transports: SipTransports) -> None:
        self.transports = transports
        self.heard: asyncio.Queue[tuple[bytes, Flow, Peer]] = asyncio.Queue()
        self.lost: asyncio.Queue[tuple[Flow, str]] = asyncio.Queue()
        self.failed: asyncio.Queue[str] = asyncio.Queue()
        transports.on_message = lambda *told: self.heard.put_nowait(told)
        transports.on_lost = lambda *told: self.lost.put_nowait(told)

    async def hear(self) -> tuple[bytes, Flow, Peer]:
        return await asyncio.wait_for(self.heard.get(), 5)

    async def fail(self) -> str:
        return await asyncio.wait_for(self.failed.get(), 8)

    def target(self, number: int = 0, name: str = "") -> Target:
        each = self.transports.listening[number]
        return Target(each.transport, each.endpoint, name)


async def two(*listen: str, tls: TlsFiles | None = None, client: TlsFiles | None = None) -> tuple[Ear, Ear]:
    """One that only sends, one that listens."""
    options = TransportOptions(tuple(map(parse_listen, listen)), tls or TlsFiles())
    there = Ear(await open_transports(options))
    return Ear(await open_transports(TransportOptions(tls=client or TlsFiles()))), there


async def close(*ears: Ear) -> None:
    for ear in ears:
        await ear.transports.close()


@pytest.mark.parametrize("listen", ["udp:127.0.0.1:0", "tcp:127.0.0.1:0", "udp:[::1]:0", "tcp:[::1]:0"])
def test_a_message_goes_there_and_its_answer_comes_back_by_the_same_way(listen):
    async def talk() -> None:
        here, there = await two(listen)
        here.transports.send(message(b"there"), there.target(), None, here.failed.put_nowait)
        data, flow, peer = await there.hear()
        assert data == message(b"there")
        there.transports.send(message(b"back"), Target(flow.transport, peer.address), flow)
        data, back, answered_by = await here.hear()
        assert data == message(b"back")
        assert answered_by.address == there.transports.listening[0].endpoint
        assert flow.local == there.transports.listening[0].endpoint
        assert back.local == peer.address
        assert here.failed.empty()
        await close(here, there)

    asyncio.run(talk())


def test_what_we_say_of_ourselves_is_where_we_are_reached():
    async def talk() -> None:
        here, there = await two("udp:0.0.0.0:0", "tcp:127.0.0.1:0")
        udp, tcp = (each.endpoint.port for each in there.transports.listening)
        somewhere = loopback(5060, "127.0.0.9")
        assert there.transports.local(Target(Transport.UDP, somewhere)) == ("127.0.0.1", udp)
        assert there.transports.local(Target(Transport.TCP, somewhere)) == ("127.0.0.1", tcp)
        own = here.transports.local(Target(Transport.UDP, somewhere))
        assert own is not None
        assert own[0] == "127.0.0.1"
        assert own[1] > 0
        assert here.transports.local(Target(Transport.TCP, somewhere)) == ("127.0.0.1", 0)
        assert here.transports.local(Target(Transport.TCP, loopback(1, "::1"))) == ("[::1]", 0)
        await close(here, there)

    asyncio.run(talk())


def test_a_port_where_nobody_is_fails_at_once_by_icmp_and_by_reset():
    async def talk() -> None:
        here, there = await two()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = loopback(free.getsockname()[1])
        for transport in (Transport.UDP, Transport.TCP):
            here.transports.send(message(), Target(transport, nobody), None, here.failed.put_nowait)
            assert "refused" in (await here.fail()).lower()
        await close(here, there)

    asyncio.run(talk())


def test_one_connection_carries_all_messages_to_a_target_in_order():
    async def talk() -> None:
        here, there = await two("tcp:127.0.0.1:0")
        for number in range(50):
            here.transports.send(message(b"%d" % number), there.target())
        heard = [await there.hear() for _ in range(50)]
        assert [data for data, _, _ in heard] == [message(b"%d" % number) for number in range(50)]
        assert len({flow.id for _, flow, _ in heard}) == 1
        await close(here, there)

    asyncio.run(talk())


def test_a_connection_that_went_is_told_of_and_made_anew():
    async def talk() -> None:
        here, there = await two("tcp:127.0.0.1:0")
        target = there.target()
        here.transports.send(message(b"1"), target)
        await there.hear()
        await there.transports.close()
        flow, why = await asyncio.wait_for(here.lost.get(), 5)
        assert flow.remote == target.endpoint
        assert why
        again = Ear(
            await open_transports(
                TransportOptions((replace(parse_listen("tcp:127.0.0.1:0"), endpoint=target.endpoint),))
            )
        )
        here.transports.send(message(b"2"), target)
        assert (await again.hear())[0] == message(b"2")
        await close(here, again)

    asyncio.run(talk())


def test_pings_are_answered_and_nonsense_ends_the_connection():
    async def talk() -> None:
        here, there = await two("tcp:127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", there.transports.listening[0].endpoint.port)
        writer.write(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readexactly(2), 5) == b"\r\n"
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        _, why = await asyncio.wait_for(there.lost.get(), 5)
        assert "no SIP" in why
        writer.close()
        await close(here, there)

    asyncio.run(talk())


def test_a_peer_that_pings_and_takes_no_answer_costs_bounded_memory():
    async def talk() -> None:
        here, there = await two("tcp:127.0.0.1:0")
        _, writer = await asyncio.open_connection("127.0.0.1", there.transports.listening[0].endpoint.port)

        async def ping() -> None:
            while True:
                writer.write(b"\r\n\r\n" * (1 << 16))
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ping(), 20)
        _, why = await asyncio.wait_for(there.lost.get(), 5)
        assert why == "the peer takes nothing"
        writer.close()
        await close(here, there)

    asyncio.run(talk())


def test_a_peer_that_takes_nothing_for_a_while_is_given_up(monkeypatch):
    monkeypatch.setattr(connections, "UNACKNOWLEDGED", 0.5)

    async def talk() -> None:
        here, _ = await two()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.bind(("127.0.0.1", 0))
            deaf.listen()
            target = Target(Transport.TCP, loopback(deaf.getsockname()[1]))
            for _ in range(30):
                here.transports.send(message(bytes(100_000)), target)
            _, why = await asyncio.wait_for(here.lost.get(), 10)
            assert "timed out" in why
        await close(here)

    asyncio.run(talk())


def files(made, name: str, *names, require: bool = False) -> TlsFiles:
    certificate, key = made.sign(name, *names)
    return TlsFiles(certificate, key, made.file, require)


def test_tls_carries_messages_and_both_sides_know_each_other(tmp_path):
    async def talk() -> None:
        made = authority(tmp_path)
        server = files(made, "server", dns("srs.example"), require=True)
        here, there = await two("tls:127.0.0.1:0", tls=server, client=files(made, "client", uri("sip:src.example")))
        here.transports.send(message(b"x"), there.target(name="srs.example"), None, here.failed.put_nowait)
        data, flow, peer = await there.hear()
        assert data == message(b"x")
        assert peer.certificate == ("URI:sip:src.example", "CN:client")
        there.transports.send(message(b"y"), Target(flow.transport, peer.address), flow)
        assert "DNS:srs.example" in (await here.hear())[2].certificate
        await close(here, there)

    asyncio.run(talk())


def test_a_certificate_of_somebody_else_gets_nothing(tmp_path):
    async def talk() -> None:
        made, other = authority(tmp_path / "a"), authority(tmp_path / "b", "Another")
        server = files(made, "server", dns("srs.example"))
        here, there = await two("tls:127.0.0.1:0", tls=server, client=TlsFiles(authorities=made.file))
        here.transports.send(message(), there.target(name="else.example"), None, here.failed.put_nowait)
        assert "not of else.example but of DNS:srs.example" in await here.fail()
        stranger = Ear(await open_transports(TransportOptions(tls=TlsFiles(authorities=other.file))))
        stranger.transports.send(message(), there.target(name="srs.example"), None, stranger.failed.put_nowait)
        assert "not to be trusted: self-signed certificate" in await stranger.fail()
        assert there.heard.empty()
        await close(here, there, stranger)

    asyncio.run(talk())


def test_mutual_tls_refuses_a_client_without_a_certificate(tmp_path):
    async def talk() -> None:
        made = authority(tmp_path)
        server = files(made, "server", address("127.0.0.1"), require=True)
        here, there = await two("tls:127.0.0.1:0", tls=server, client=TlsFiles(authorities=made.file))
        here.transports.send(message(), there.target(), None, here.failed.put_nowait)
        await asyncio.sleep(0.3)
        assert there.heard.empty()
        assert not here.lost.empty() or not here.failed.empty()
        await close(here, there)

    asyncio.run(talk())


def test_a_certificate_that_was_renewed_is_shown_without_a_restart(tmp_path):
    async def shown(ear: Ear) -> str:
        client = Ear(await open_transports(TransportOptions(tls=TlsFiles(authorities=tmp_path / "authority.pem"))))
        client.transports.send(message(), ear.target(name="srs.example"))
        _, flow, peer = await ear.hear()
        ear.transports.send(message(), Target(flow.transport, peer.address), flow)
        _, _, server = await client.hear()
        await close(client)
        return server.certificate[-1]

    async def talk() -> None:
        made = authority(tmp_path)
        server = files(made, "server", dns("srs.example"))
        assert server.certificate is not None
        told: list[str | None] = []
        listen = (parse_listen("tls:127.0.0.1:0"),)
        there = Ear(await open_transports(TransportOptions(listen, server, trouble=told.append)))
        assert await shown(there) == "CN:server"
        certificate, key = made.sign("next", dns("srs.example"))
        server.certificate.write_bytes(certificate.read_bytes())
        there.transports.renew()
        assert await shown(there) == "CN:server"  # its key is still missing
        assert "server.pem: cannot be used for TLS" in (told[-1] or "")
        assert server.key is not None
        server.key.write_bytes(key.read_bytes())
        there.transports.renew()
        assert await shown(there) == "CN:next"
        assert told[0] is told[-1] is None
        await close(there)

    asyncio.run(talk())


@needs_root
def test_a_key_for_root_alone_serves_and_is_told_of_once_the_process_is_another_user(tmp_path):
    # What the other user must not do here is read the key, not walk to it.
    for each in (tmp_path, *tmp_path.parents[:-1]):
        if each.stat().st_uid == os.geteuid():
            each.chmod(each.stat().st_mode | 0o011)
    certificate, key = authority(tmp_path).sign("server", dns("srs.example"))
    certificate.chmod(0o644)
    key.chmod(0o600)
    told = run(
        f"""
from pathlib import Path
from recorder import privileges
from recorder.sip_ua.tls import TlsContexts, TlsFiles
contexts = TlsContexts(TlsFiles(Path({str(certificate)!r}), Path({str(key)!r})), listening=True)
before = contexts.renew()
privileges.become({USER!r})
privileges.drop({USER!r})
tell([before, contexts.renew(), len(contexts.server.get_ciphers()) > 0])
"""
    )
    assert told[0] is None
    assert str(key) in told[1]
    assert "may not read it" in told[1]
    assert told[2]


def test_handshakes_count_as_connections_and_have_their_time(tmp_path):
    """Whoever opens connections and says nothing keeps others out for so long, and no longer."""

    async def talk() -> None:
        made = authority(tmp_path)
        options = TransportOptions(
            (parse_listen("tls:127.0.0.1:0"),), files(made, "server", dns("srs.example")), connect_timeout=1.0,
            most_connections=2,
        )  # fmt: skip
        there = Ear(await open_transports(options))
        port = there.transports.listening[0].endpoint.port
        mute = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        # The third is closed at once; the others when their time is over, which the first read waits for.
        assert await asyncio.wait_for(mute[2][0].read(), 0.9) == b""
        here = Ear(await open_transports(TransportOptions(tls=TlsFiles(authorities=made.file))))
        assert [await asyncio.wait_for(reader.read(), 10) for reader, _ in mute[:2]] == [b"", b""]
        here.transports.send(message(b"x"), there.target(name="srs.example"))
        assert (await there.hear())[0] == message(b"x")
        for _, writer in mute:
            writer.close()
        await close(here, there)

    asyncio.run(talk())


def test_a_handshake_in_progress_does_not_outlive_its_door(tmp_path):
    async def talk() -> None:
        made = authority(tmp_path)
        here, there = await two("tls:127.0.0.1:0", tls=files(made, "server", dns("srs.example")))
        reader, writer = await asyncio.open_connection("127.0.0.1", there.transports.listening[0].endpoint.port)
        await asyncio.sleep(0)
        await close(here, there)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    asyncio.run(talk())


def test_a_peer_that_never_agrees_to_close_does_not_outlive_the_transports(tmp_path):
    made, over = authority(tmp_path), threading.Event()
    server = files(made, "server", dns("srs.example"))

    def deaf(listener: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificate, server.key)
        with context.wrap_socket(listener.accept()[0], server_side=True):
            over.wait(20)

    async def talk(port: int) -> None:
        here = Ear(await open_transports(TransportOptions(tls=server)))
        here.transports.send(message(), Target(Transport.TLS, loopback(port), "srs.example"), None, lambda why: None)
        (connection,) = here.transports._connections.values()
        while connection.flow is None:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(close(here), 10)
        assert connection.gone.is_set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=deaf, args=(listener,))
        thread.start()
        try:
            asyncio.run(talk(listener.getsockname()[1]))
        finally:
            over.set()
            thread.join()


def test_a_body_that_is_larger_than_agreed_ends_the_connection_and_no_other_does():
    async def talk() -> None:
        options = TransportOptions((parse_listen("tcp:127.0.0.1:0"),), largest_body=3 << 20)
        here, there = Ear(await open_transports()), Ear(await open_transports(options))
        here.transports.send(message(bytes(3 << 20)), there.target())
        assert len((await there.hear())[0]) > 3 << 20
        here.transports.send(message(bytes((3 << 20) + 1)), there.target())
        _, why = await asyncio.wait_for(there.lost.get(), 5)
        assert why == f"what came is no SIP: body of {(3 << 20) + 1} octets"
        await close(here, there)

    asyncio.run(talk())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(tmp_path, version):
    async def talk() -> None:
        made = authority(tmp_path)
        here, there = await two("tls:127.0.0.1:0", tls=files(made, "server", dns("a.example")))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            old.minimum_version = old.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", there.transports.listening[0].endpoint.port, ssl=old)
        await close(here, there)

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("names", "host", "fits"),
    [
        (("DNS:a.example",), "A.example.", True),
        (("DNS:*.example",), "a.example", False),
        (("URI:sip:a.example", "DNS:b.example"), "a.example", True),
        (("URI:sip:user@a.example",), "a.example", False),
        (("IP:192.0.2.1",), "192.0.2.1", True),
        (("IP:2001:db8::1",), "[2001:DB8::1]", True),
        (("CN:a.example",), "a.example", True),
        (("DNS:b.example", "CN:a.example"), "a.example", False),
        ((), "a.example", False),
    ],
)
def test_names_in_certificates_are_read_as_rfc_5922_says(names, host, fits):
    assert names_fit(names, host) is fits


def test_files_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "bad.pem").write_text("nothing")
    for broken in (tmp_path / "none.pem", tmp_path / "bad.pem"):
        options = TransportOptions((parse_listen("tls:127.0.0.1:0"),), TlsFiles(broken))
        with pytest.raises(TlsError, match=broken.name):
            asyncio.run(open_transports(options))


def test_an_address_that_is_taken_or_not_ours_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=str(port)):
            asyncio.run(open_transports(TransportOptions((parse_listen(f"tcp:127.0.0.1:{port}"),))))


@pytest.mark.parametrize("text", ["", "udp", "udp:", "ws:127.0.0.1:1", "udp:name:5060", "tcp:127.0.0.1:99999", "5060"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ListenError, match="address"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("udp:127.0.0.1", "udp:127.0.0.1:5060"), ("TLS:[::1]", "tls:[::1]:5061"), ("tcp:0.0.0.0:7", "tcp:0.0.0.0:7")],
)
def test_ports_have_their_usual_values(text, shown):
    assert str(parse_listen(text)) == shown
