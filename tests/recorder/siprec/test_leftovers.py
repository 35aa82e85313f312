"""Sessions that a killed SRC left open, from files to BYE, over loopback."""

import asyncio
import os

import pytest

from recorder.sip_ua.api import Body, Credentials, Ended, NewSession
from recorder.sip_ua.listen import parse_listen
from recorder.siprec import leftovers
from recorder.siprec.leftovers import AHEAD, Leftovers, end_all
from recorder.siprec.sip_stack import StackOptions, open_stack

OFFER = (
    b"v=0\r\no=x 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na={way}\r\n"
)
URI = "sip:rec@srs.example"


def body(way: str) -> Body:
    return Body("application/sdp", OFFER.replace(b"{way}", way.encode()))


async def interrupted(directory, transport):
    """A session is begun, its process goes; gives what the server heard then."""
    server = await open_stack(StackOptions((parse_listen(f"{transport}:127.0.0.1:0"),)))
    ended: list[Ended] = []

    def taken(incoming):
        session = incoming.accept(body("recvonly"))
        session.on_end = ended.append

    server.agent.on_invite = taken
    end = str(server.listening[0]).partition(":")[2]
    client = await open_stack(StackOptions())
    new = NewSession(uri=f"sip:rec@{end};transport={transport}", body=body("sendonly"))
    session = await client.agent.invite(new)
    Leftovers(directory).note(session, URI, "")
    assert [path.suffix for path in directory.iterdir()] == [".json"]
    again = await open_stack(StackOptions())
    try:
        left = Leftovers(directory).found()
        assert [(each.server, each.dialog.call_id) for each in left] == [(URI, session.call_id)]

        async def goodbye(one, credentials):
            return await again.agent.end_left(one.dialog, one.back, credentials)

        await asyncio.wait_for(end_all(left, goodbye, {}), 5)
    finally:
        await again.agent.close(0.2)
        await client.agent.close(0.2)
        await server.agent.close(0.2)
    return ended


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_server_hears_bye_after_a_kill(tmp_path, transport):
    (ended,) = asyncio.run(interrupted(tmp_path / "sessions", transport))
    assert ended.by == "peer"
    assert ended.message.cseq[0] > AHEAD
    assert list((tmp_path / "sessions").iterdir()) == []


async def established(use):
    """Have `use` called with a session."""
    server = await open_stack(StackOptions((parse_listen("udp:127.0.0.1:0"),)))
    server.agent.on_invite = lambda incoming: incoming.accept(body("recvonly"))
    client = await open_stack(StackOptions())
    end = str(server.listening[0]).partition(":")[2]
    use(await client.agent.invite(NewSession(uri=f"sip:rec@{end}", body=body("sendonly"))))
    await client.agent.close(0.5)
    await server.agent.close(0.5)


def test_a_session_that_ends_leaves_nothing(tmp_path):
    kept = Leftovers(tmp_path / "sessions")
    asyncio.run(established(lambda session: kept.note(session, URI, "")()))
    assert list((tmp_path / "sessions").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"call_id": 1}', "x" * 70000])
def test_a_file_that_is_none_of_ours_is_removed(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "half.new").write_text(text)
    assert Leftovers(tmp_path).found() == []
    assert os.listdir(tmp_path) == []


def test_a_server_that_does_not_answer_is_asked_again_and_left_then(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "PAUSES", (0.0, 0.01, 0.01))
    path = tmp_path / "a.json"
    path.write_text("{}")
    asked = []

    async def goodbye(one, credentials):
        asked.append(credentials)
        return False

    secret = Credentials("src", "secret")
    one = leftovers.Leftover(path, None, None, URI, "")  # type: ignore[arg-type]
    asyncio.run(end_all([one], goodbye, {URI: secret}))
    assert asked == [secret] * 3
    assert not path.exists()


def test_a_store_that_cannot_be_written_is_told_once(tmp_path):
    troubles = []
    kept = Leftovers(tmp_path / "file" / "sessions", troubles.append)
    (tmp_path / "file").write_text("")

    def use(session):
        kept.note(session, URI, "")()
        kept.note(session, URI, "")()

    asyncio.run(established(use))
    assert len(troubles) == 1
