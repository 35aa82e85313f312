"""Recording sessions that SRCs send us, from the INVITE to the files: the real engine, media as batches."""

import pytest

from tests.srs_lab import SrsLab, run

ULAW_90 = -5884
"""What the µ-law octet 0x90 decodes to."""


@pytest.fixture
def lab(tmp_path):
    return SrsLab(tmp_path / "out")


def test_a_session_becomes_a_recording_like_any_other(lab):
    async def script(lab):
        lab.after(0.2)
        session = lab.record()
        lab.speak(session, 0, 4.0, value=0x90)
        lab.speak(session, 1, 4.0, value=0xA0)
        lab.after(4.5)
        lab.bye(session)
        lab.after(8)

    (recording,) = run(lab, script)
    document = recording.document
    assert (document.state, document.warnings) == ("completed", ())
    assert (document.caller.uri, document.caller.name) == ("sip:alice@a.example", "Alice")
    assert (document.callee.uri, document.callee.name) == ("sip:bob@b.example", "Bob")
    assert document.call_id == "rs-1@src"
    assert [(s.participant, s.packets, s.codec) for s in document.streams] == [
        ("caller", 200, "PCMU/8000"),
        ("callee", 200, "PCMU/8000"),
    ]
    samples = recording.samples()
    assert samples.shape == (32000, 2)
    assert len(set(samples[:, 0])) == len(set(samples[:, 1])) == 1
    assert samples[0, 0] != samples[0, 1]
    assert lab.ports.open_ports == []
