"""Sessions that the server ended unasked, until their clients know it: the real engine, media as batches."""

from dataclasses import replace

import pytest

from recorder.sip_ua.api import EndedBy
from recorder.siprec.srs_leaving import SILENT
from tests.srs_lab import CALL, NOTHING, SECOND, SrsLab, message, partial, run, stamp


@pytest.fixture
def lab(tmp_path):
    return SrsLab(tmp_path / "out")


def talking(lab):
    """A session whose media come just now."""
    session = lab.record()
    lab.speak(session, 0, 20.0)
    lab.speak(session, 1, 20.0)
    lab.after(4)
    hear(lab)
    return session


def hear(lab):
    """Media came to all ports just now."""
    for port in lab.ports.open_ports:
        lab.ports.states[port.rtp.port] = replace(NOTHING, packets=1, last=lab.now)


def end(lab, session):
    """No ACK ever came; our BYE is on its way, or lost."""
    session.session.parted = False
    session.session.end(EndedBy.TIMER)
    lab.turn()


def part(session, bye=None):
    session.session.parted = True
    session.session.on_parted(bye)


def test_ports_stay_open_until_the_client_answers_our_bye(lab):
    async def script(lab):
        session = talking(lab)
        end(lab, session)
        for _ in range(15):
            lab.after(2)
            hear(lab)
            lab.server.look(lab.now)
            assert len(lab.ports.open_ports) == 2
        assert lab.server.count == 0
        part(session)
        assert lab.ports.open_ports == []
        lab.after(70)

    (recording,) = run(lab, script)
    assert recording.codes == ["end-not-seen"]
    assert [stream.packets for stream in recording.document.streams] == [1000, 1000]


def test_a_client_that_is_silent_is_waited_for_no_longer(lab):
    async def script(lab):
        session = talking(lab)
        end(lab, session)
        lab.now += SILENT - SECOND
        lab.server.look(lab.now)
        assert len(lab.ports.open_ports) == 2
        lab.now += SECOND
        lab.server.look(lab.now)
        assert lab.ports.open_ports == []
        part(session)

    run(lab, script)


def test_one_that_was_silent_before_is_not_waited_for(lab):
    async def script(lab):
        session = talking(lab)
        lab.now += SILENT
        end(lab, session)
        assert lab.ports.open_ports == []

    run(lab, script)


def test_a_bye_of_the_client_that_crosses_ours_tells_how_the_call_ended(lab):
    async def script(lab):
        session = talking(lab)
        end(lab, session)
        lab.after(1)
        said = partial(f'<session session_id="{CALL}"><stop-time>{stamp(4)}</stop-time></session>').encode()
        part(session, message("BYE", "rs-1@src", said, "application/rs-metadata+xml"))
        lab.after(8)

    (recording,) = run(lab, script)
    assert (recording.document.state, recording.codes) == ("completed", [])
    assert recording.document.ended[:19] == stamp(4)[:19]


def test_a_server_that_ends_waits_as_long_as_it_may_and_closes_all(lab):
    async def script(lab):
        session = talking(lab)
        end(lab, session)
        assert await lab.server.drain(0.01) == 0
        assert len(lab.ports.open_ports) == 2
        await lab.server.close()
        assert lab.ports.open_ports == []

    (recording,) = run(lab, script)
    assert recording.codes == ["end-not-seen"]
