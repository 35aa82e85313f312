"""sipp as recording client of a running server: whether what is said comes out, quickly; every sample on demand.

On a machine that other things share, RTP is sent when it can be: there the samples are not looked at.
"""

import os
import shutil

import pytest

from tests.sipp_client import Say, available
from tests.siprec_capture import sessions, traffic
from tests.srs_lab_habits import HABITS
from tests.srs_lab_sipp import run

pytestmark = [
    pytest.mark.skipif(not available, reason="sipp is not installed"),
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
]
SLOW = pytest.mark.skipif("SPANREC_SLOW" not in os.environ, reason="needs a machine of its own: set SPANREC_SLOW")
QUICK = ("plain-tcp", "four-lines", "later-update", "bye", "bye-cseq", "drafts", "no-marks", "video", "order")


def short(captures, *names):
    return [captures / "lab" / f"opensips_siprec_{name}.pcap" for name in names]


def test_habits_of_the_field_are_recorded_as_what_they_are(tmp_path):
    rows, odd = run(QUICK, [], tmp_path, exact=False)
    assert [row[0] for row in rows] == [each.name for each in HABITS if each.name in QUICK]
    assert [(row[0], row[3]) for row in rows if row[3]] == []
    assert odd == ""


def test_opensips_said_again_is_the_call_that_its_capture_holds(captures, tmp_path):
    rows, odd = run((), short(captures, "early_busy", "hold"), tmp_path, exact=False)
    assert [(row[0], row[3]) for row in rows] == [("early_busy", ""), ("hold", "")]
    assert odd == ""


@SLOW
def test_every_sample_of_every_habit_and_of_opensips_is_there(captures, tmp_path):
    every = sorted((captures / "lab").glob("opensips_siprec_*.pcap"))
    rows, odd = run([each.name for each in HABITS], every, tmp_path)
    assert [(row[0], row[3]) for row in rows if row[3]] == []
    assert odd == ""


def test_what_opensips_said_is_said_again_octet_by_octet_but_for_addresses(captures):
    (session,) = sessions(traffic(short(captures, "pause_resume")[0]))
    steps = [step for step in session.steps() if isinstance(step, Say)]
    assert [step.head.partition(" ")[0] for step in steps] == ["INVITE", "ACK"] * 3 + ["BYE"]
    assert [step.body for step in steps] == [each.message.body for each in session.said]
    invite = steps[0].head.split("\n")
    said = session.said[0].octets.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    changed = {line.partition(":")[0].partition(" ")[0] for line in invite if line not in said}
    assert changed == {"INVITE", "Via", "Call-ID", "Contact"}
